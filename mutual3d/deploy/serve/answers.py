"""What a service answers, as types: its page /docs is made of them."""

from pydantic import BaseModel, Field


class ClassScore(BaseModel):
    """A class and its probability in [0, 1]."""

    name: str
    probability: float


class Times(BaseModel):
    """Milliseconds: of decoding, of waiting for the network, of the network (of the whole batch), and from the end of the upload on."""

    decode_ms: float
    wait_ms: float
    network_ms: float
    total_ms: float


class RowAnswer(BaseModel):
    """A configuration that is kept ready: its sizes, its costs (milliseconds of one clip on this machine), its accuracy."""

    configuration: str
    spatial: int
    temporal: int
    latency_ms: float
    gflops: float
    parameters: int
    accuracy: float
    on_front: bool = Field(description="no other one is as accurate in as little time")


class Answer(BaseModel):
    """What the network sees in an upload."""

    top: list[ClassScore]
    row: RowAnswer = Field(description="where it ran")
    asked: str = Field(description="the configuration that the budget chose")
    lowered: bool = Field(description="the service was busy, and ran a cheaper configuration than the budget chose")
    looked_at: list[tuple[float, float]] = Field(description="seconds of the first and the last frame that it saw; none of a still")
    duration: float = Field(description="the second at which the video ends")
    padded: bool = Field(description="the video is shorter than a clip, which repeats its last frame")
    times: Times
    deadline_ms: float
    met: bool = Field(description="the answer was there within the deadline")
    batch: int = Field(description="clips that were computed together")


class SegmentAnswer(BaseModel):
    """A stretch of an upload in which one class is seen. confidence: the mean probability of the class, over time."""

    start: float = Field(description="second on the upload's own clock")
    end: float
    label: str
    confidence: float


class TimelineAnswer(BaseModel):
    """What the network sees in an upload, and when."""

    segments: list[SegmentAnswer] = Field(description="by their start")
    windows: int = Field(description="that were looked at")
    ran: dict[str, int] = Field(description="windows by the configuration that they ran at")
    asked: str = Field(description="the configuration that the budget chose")
    lowered: bool = Field(description="windows ran at cheaper configurations than the budget chose, to be in time")
    duration: float = Field(description="the second at which the video ends")
    total_ms: float
    deadline_ms: float
    met: bool = Field(description="the answer was there within the deadline")


class Look(BaseModel):
    """A frame that the network looked at. activation: in [0, 1], over that of the frame with the most. image: a data: address of a
    JPEG, the frame with the heat over it."""

    second: float
    activation: float
    image: str


class LooksAnswer(BaseModel):
    """What in an upload spoke for a class, at one configuration."""

    row: RowAnswer
    class_name: str
    probability: float
    method: str = Field(description="cam, by the classifier's weights, or grad_cam, by gradients")
    looks: list[Look]
    total_ms: float
    deadline_ms: float
    met: bool = Field(description="the answer was there within the deadline")


class StreamAnswer(BaseModel):
    """What the network sees in the seconds `start` to `end` of a stream."""

    start: float
    end: float
    top: list[ClassScore]
    row: RowAnswer
    wait_ms: float
    network_ms: float
    deadline_ms: float
    met: bool
    dropped: int = Field(description="windows of the stream so far that were never answered")
    ended: list[SegmentAnswer] = Field([], description="segments of the timeline that are known to have ended now, where events were asked for")


class StreamEnd(BaseModel):
    """The last message of a stream whose client has said that no frame follows."""

    ended: list[SegmentAnswer] = Field(description="segments of the timeline that lasted until the last window")


class Table(BaseModel):
    """What is kept ready, ascending in time, and in what terms."""

    rows: list[RowAnswer]
    metric: str
    unit: str
    conditions: str = Field(description="split, views and crop of every accuracy")
    device: str = Field(description="the key of the times: processor, runtime, threads")
    classes: int
    frames: int = Field(description="of a clip")
    clip_seconds: float = Field(description="that a clip spans")
    fps: float = Field(description="frames a second that the network was trained at")
    crop: int = Field(description="pixels of a clip's side")


class Limits(BaseModel):
    """What an upload may be."""

    bytes: int
    seconds: float
    upload_seconds: float
    deadline_ms: float


class Health(BaseModel):
    """Whether the service takes requests."""

    status: str = Field(description="ready, closing, or broken where it has to be started again")
    model: str
    runtime: str
    configurations: int
    inside: int = Field(description="requests that are read, wait or are computed")
    streams: int
    uptime_seconds: float
    limits: Limits


class Sample(BaseModel):
    """A file that the page offers."""

    number: int
    name: str
    is_video: bool


class Problem(BaseModel):
    """Why a request was refused, in a sentence."""

    detail: str
