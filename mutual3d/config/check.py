"""What no single key can say: values that must agree, and settings that are not supported."""

import re

IMAGE_DATASETS = ("image_folder", "cifar10", "cifar100", "food101", "indoor67", "digits")
DATASETS = ("kinetics", "charades", "ava", *IMAGE_DATASETS)

# (key, value that is supported): anything else is an error, because skipping it would change the network or the task.
_SUPPORTED = {
    "NUM_SHARDS": (1,),
    "BN.NORM_TYPE": ("batchnorm",),
    "BN.MOMENTUM": (0.1,),
    "BN.EPSILON": (1e-5,),
    "MODEL.DROPCONNECT_RATE": (0.0,),
    "MODEL.LOSS_FUNC": ("cross_entropy", "bce_logit", "bce"),
    "MODEL.HEAD_ACT": ("softmax", "sigmoid"),
    "X3D.BN_LIN5": (False,),
    "X3D.CHANNELWISE_3x3x3": (True,),
    "RESNET.STRIDE_1X1": (False,),
    "RESNET.NUM_GROUPS": (1,),
    "RESNET.TRANS_FUNC": ("bottleneck_transform", "x3d_transform"),
    "DATA.REVERSE_INPUT_CHANNEL": (False,),
    "DATA.TRAIN_JITTER_MOTION_SHIFT": (False,),
    "DATA.ENSEMBLE_METHOD": ("sum", "max"),
    "DETECTION.ALIGNED": (True,),
    "SOLVER.OPTIMIZING_METHOD": ("sgd",),
    "SOLVER.LR_POLICY": ("cosine", "linear", "steps_with_relative_lrs"),
    "TRAIN.DATASET": DATASETS,
    "TEST.DATASET": DATASETS,
    "TRAIN.CHECKPOINT_TYPE": ("pytorch",),
    "TEST.CHECKPOINT_TYPE": ("pytorch",),
    "TRAIN.CHECKPOINT_INFLATE": (False,),
    "TRAIN.MIXED_PRECISION_DTYPE": ("bfloat16", "float16"),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "MUTUAL.OBJECTIVE": ("inplace_distillation", "labels", "ensemble_distillation", "ensemble_distillation_vanilla"),
    "MUTUAL.BATCHNORM": ("calibrated", "private_width", "private_size"),
    "CALIBRATION.TRANSFORM": ("test", "train"),
    "CALIBRATION.AVERAGE": ("exact", "moving"),
}

# What to do instead, where it is not plain.
_CONVERT = "; tools/convert_checkpoint.py makes a checkpoint of another project's file"
_INSTEAD = {"TRAIN.CHECKPOINT_TYPE": _CONVERT, "TEST.CHECKPOINT_TYPE": _CONVERT, "TRAIN.CHECKPOINT_INFLATE": _CONVERT}

_POSITIVE = (
    "TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS", "TRAIN.EVAL_PERIOD", "TRAIN.CHECKPOINT_PERIOD", "TEST.BATCH_SIZE",
    "TEST.NUM_ENSEMBLE_VIEWS", "SOLVER.MAX_EPOCH", "DATA.NUM_FRAMES", "DATA.SAMPLING_RATE", "DATA.TARGET_FPS",
    "DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE", "MODEL.NUM_CLASSES", "GRID.NUM_VIEWS", "GRID.WIDTH_STEP",
    "GRID.LATENCY_REPEATS", "LOG_PERIOD", "CALIBRATION.BATCH_SIZE",
    "RESNET.WIDTH_PER_GROUP", "SLOWFAST.ALPHA", "SLOWFAST.BETA_INV", "SLOWFAST.FUSION_CONV_CHANNEL_RATIO",
)  # fmt: skip


def check_config(cfg):
    """Raise ValueError for the first value that cannot work, naming the key, the legal values and the fix."""
    for key, legal in _SUPPORTED.items():
        value = _get(cfg, key)
        if value not in legal:
            raise ValueError(f"{key} is {value!r}: mutual3d supports {' or '.join(map(repr, legal))}{_INSTEAD.get(key, '')}")
    for key in _POSITIVE:
        if _get(cfg, key) <= 0:
            raise ValueError(f"{key} is {_get(cfg, key)}: it must be above 0")
    unknown = [name for name in cfg.GRID.LATENCY_DEVICES if not re.fullmatch(r"cpu|cuda(:\d+)?", name)]
    if unknown:
        raise ValueError(f"GRID.LATENCY_DEVICES names {', '.join(unknown)}: choose among cpu, cuda, cuda:1, ...")
    if _nonempty(cfg.NONLOCAL.LOCATION):
        raise ValueError(f"NONLOCAL.LOCATION is {cfg.NONLOCAL.LOCATION}: non-local blocks are not supported")
    _check_batches(cfg)
    _check_task(cfg)
    _check_network(cfg)
    if cfg.TRAIN.DATASET == "ava":
        _check_ava(cfg)
    if cfg.MUTUAL.ENABLE:
        _check_sizes(cfg)
        _check_method(cfg)
        _check_interpolated(cfg)


def _get(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _nonempty(value):
    return any(_nonempty(part) for part in value) if isinstance(value, (list, tuple)) else True


def _check_task(cfg):
    """Data, labels, loss and scores must speak of the same thing."""
    several = cfg.TRAIN.DATASET in ("charades", "ava")
    wanted = {
        "TEST.DATASET": cfg.TRAIN.DATASET,
        "DATA.MULTI_LABEL": cfg.TRAIN.DATASET == "charades",
        "DETECTION.ENABLE": cfg.TRAIN.DATASET == "ava",
        "MODEL.HEAD_ACT": "sigmoid" if several else "softmax",
    }
    for key, value in wanted.items():
        if _get(cfg, key) != value:
            raise ValueError(f"{key} is {_get(cfg, key)!r}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be {value!r}")
    if several != (cfg.MODEL.LOSS_FUNC != "cross_entropy"):
        legal = "bce_logit or bce" if several else "cross_entropy"
        raise ValueError(
            f"MODEL.LOSS_FUNC is '{cfg.MODEL.LOSS_FUNC}': with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be {legal}"
        )
    for key in ("TRAIN_JITTER_SCALES_RELATIVE", "TRAIN_JITTER_ASPECT_RELATIVE", "COLOR_JITTER", "CROP_PADDING"):
        if cfg.DATA[key] and cfg.TRAIN.DATASET not in IMAGE_DATASETS:
            raise ValueError(f"DATA.{key} is {cfg.DATA[key]}: mutual3d supports it for images, not for {cfg.TRAIN.DATASET}")


IMAGE_NETWORKS = ("MobileNetV1", "MobileNetV2", "MobileNetV3", "ImageResNet", "WideResNet")


def _check_network(cfg):
    """The network must take what the data set gives."""
    is_video = cfg.TRAIN.DATASET not in IMAGE_DATASETS
    if is_video and cfg.MODEL.MODEL_NAME in IMAGE_NETWORKS:
        raise ValueError(f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} takes images, and TRAIN.DATASET is {cfg.TRAIN.DATASET}")
    if not is_video and cfg.DATA.NUM_FRAMES != 1:
        raise ValueError(f"DATA.NUM_FRAMES is {cfg.DATA.NUM_FRAMES}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be 1")


def _check_ava(cfg):
    """AVA has two splits, results files of its own, and whole frames that differ in size."""
    wanted = {"GRID.SPLIT": "val", "TEST.SPLIT": "val", "TEST.SAVE_RESULTS_PATH": ""}
    if cfg.MUTUAL.ENABLE and cfg.CALIBRATION.ENABLE:
        wanted["CALIBRATION.TRANSFORM"] = "train"
    for key, value in wanted.items():
        if _get(cfg, key) != value:
            raise ValueError(f"{key} is {_get(cfg, key)!r}: with TRAIN.DATASET ava it must be {value!r}")


def _check_interpolated(cfg):
    sizes, trained = cfg.GRID.INTERPOLATED_SIZES, cfg.MUTUAL.SPATIAL_SIZES
    wrong = [size for size in sizes if size in trained or not min(trained) < size < max(trained)]
    if sizes and cfg.MUTUAL.BATCHNORM != "private_size":
        raise ValueError(f"GRID.INTERPOLATED_SIZES is {sizes}: it needs MUTUAL.BATCHNORM private_size")
    if wrong:
        raise ValueError(f"GRID.INTERPOLATED_SIZES {wrong} must lie between the trained sizes {trained}")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"GRID.INTERPOLATED_SIZES {list(sizes)} names a size twice")


_WHOLE_NETWORK_FIRST = ("shared_size", "each_width", "each_size")


def _check_method(cfg):
    """Rules, objective and norms of a step must go together."""
    mutual = cfg.MUTUAL
    if not mutual.LARGEST and not mutual.SUBNETS:
        raise ValueError("MUTUAL.LARGEST is False and MUTUAL.SUBNETS is empty: nothing would be trained")
    if mutual.OBJECTIVE == "inplace_distillation" and not mutual.LARGEST and mutual.SUBNETS[0] not in _WHOLE_NETWORK_FIRST:
        raise ValueError(
            f"MUTUAL.OBJECTIVE inplace_distillation needs MUTUAL.LARGEST True, or {' or '.join(_WHOLE_NETWORK_FIRST)} first "
            f"in MUTUAL.SUBNETS, which is {mutual.SUBNETS}; or set MUTUAL.OBJECTIVE labels"
        )
    if mutual.OBJECTIVE.startswith("ensemble") and (mutual.LARGEST or list(mutual.SUBNETS) != ["each_size"]):
        raise ValueError(f"MUTUAL.OBJECTIVE {mutual.OBJECTIVE} needs MUTUAL.SUBNETS [each_size] and MUTUAL.LARGEST False")
    for rule in ("each_width", "each_size") if mutual.LARGEST else ():
        if rule in mutual.SUBNETS:
            raise ValueError(f"MUTUAL.SUBNETS {mutual.SUBNETS}: {rule} runs the largest already; set MUTUAL.LARGEST False")
    if mutual.BATCHNORM == "private_width" and list(mutual.SUBNETS) != ["each_width"]:
        raise ValueError(f"MUTUAL.SUBNETS is {mutual.SUBNETS}: with MUTUAL.BATCHNORM private_width it must be [each_width]")
    if "each_width" in mutual.SUBNETS:
        _check_widths(mutual)


def _check_widths(mutual):
    """The greatest of the listed widths is what is validated and tested, the least where budgets begin."""
    widths = list(mutual.WIDTHS)
    if not widths or [min(widths), max(widths)] != list(mutual.WIDTH_RANGE):
        raise ValueError(
            f"MUTUAL.WIDTHS is {widths}: each_width needs a list from one end of MUTUAL.WIDTH_RANGE "
            f"{list(mutual.WIDTH_RANGE)} to the other"
        )


def _check_batches(cfg):
    if cfg.TRAIN.BATCH_SIZE % cfg.TRAIN.ACCUMULATION_STEPS:
        raise ValueError(
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} does not divide into "
            f"TRAIN.ACCUMULATION_STEPS {cfg.TRAIN.ACCUMULATION_STEPS} equal parts"
        )
    scales = list(cfg.DATA.TRAIN_JITTER_SCALES)
    if cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE or cfg.DATA.CROP_PADDING:
        return
    if len(scales) != 2 or not cfg.DATA.TRAIN_CROP_SIZE <= scales[0] <= scales[1]:
        raise ValueError(
            f"DATA.TRAIN_JITTER_SCALES is {scales}: give [least, greatest] short sides, "
            f"none under DATA.TRAIN_CROP_SIZE {cfg.DATA.TRAIN_CROP_SIZE}"
        )


def _adaptive_frames(cfg):
    """Key and frames of the pathway that has configurations."""
    if cfg.MODEL.MODEL_NAME == "SlowFast":
        return "DATA.NUM_FRAMES / SLOWFAST.ALPHA", cfg.DATA.NUM_FRAMES / cfg.SLOWFAST.ALPHA
    return "DATA.NUM_FRAMES", cfg.DATA.NUM_FRAMES


def _check_sizes(cfg):
    for key, sizes, other, largest in (
        ("MUTUAL.SPATIAL_SIZES", cfg.MUTUAL.SPATIAL_SIZES, "DATA.TRAIN_CROP_SIZE", cfg.DATA.TRAIN_CROP_SIZE),
        ("MUTUAL.TEMPORAL_SIZES", cfg.MUTUAL.TEMPORAL_SIZES, *_adaptive_frames(cfg)),
    ):
        if not sizes or max(sizes) != largest:
            raise ValueError(f"{key} is {sizes}: its largest value must equal {other}, which is {largest}")
