"""Every config key with its default, its legal values and its meaning; names are PySlowFast's, what is new sits under
MUTUAL, CALIBRATION and GRID, and is marked (new) where it stands among PySlowFast's.

A key is declared as `Key(default, legal values, kind)`. The kind says what a run that goes on from a checkpoint does with
another value: TAKES_EFFECT (one line says so), IS_TOLD (a warning: the finished epochs were made with the other value), or
IS_REFUSED (the result would be neither run's).
"""

from .keys import IS_REFUSED, IS_TOLD, TAKES_EFFECT, Group, Key, declared, defaults_of
from .legal import AnyOf, Each, Empty, Flag, Integer, Number, Only, Registered, Share, Text

# Several keys' legal values.
COUNT = Integer(1, 10**6)
CHANNELS = Integer(1, 10**5)
RATE = Number(0, 1000, note="a learning rate")
# Networks halve their input five times; what is left of fewer pixels, or of a clip of ten thousand frames, means nothing.
SIDE = Integer(8, 10**4)
SIZES = Each(SIDE, 0, 64, distinct=True)
FRAMES = Integer(1, 10**4)
STAGES = Each(Each(Integer(1, 16), 1, 2), 4, 4)
BLOCKS = Each(Each(Integer(0, 1000), 1, 2), 4, 4)
WIDTH = Number(0, 16, above=True, note="a multiple of the channels")
PATH = Text()
NAME = Text(empty=False)
FILES = Each(NAME, 0, 1000)
DEVICE = Text(pattern=r"cpu|cuda(:\d{1,3})?", meaning="cpu, cuda, cuda:1, ...")
AREAS = AnyOf(Only([]), Each(Number(0, 1, above=True, note="a share of the area"), 2, 2, ascending=True))
ASPECTS = AnyOf(Only([]), Each(Number(0.01, 100), 2, 2, ascending=True))
BITS = Only(2, 3, 4, 32)
NO_BLOCKS = Empty("mutual3d has no non-local blocks; give empty lists to train the network without them")

_C = Group()

# Where everything that a run makes is written.
_C.OUTPUT_DIR = Key("./out", NAME, TAKES_EFFECT)
# Seed of weights, shuffling, augmentation and sub-network sampling.
_C.RNG_SEED = Key(1, Integer(0, 2**32 - 1), IS_REFUSED)
# Iterations between two json_stats lines of training.
_C.LOG_PERIOD = Key(10, COUNT, TAKES_EFFECT)
# (new) Seconds between two saves of what calibration and the grid have so far; a killed stage goes on from there.
_C.PARTIAL_SAVE_SECONDS = Key(20.0, Number(0, 86400, note="seconds"), TAKES_EFFECT)
# 0 runs on the CPU. Otherwise a GPU is used where there is one; several are used by `torchrun --nproc_per_node N`.
_C.NUM_GPUS = Key(1, Integer(0, 10**4), TAKES_EFFECT)
# (new) Threads that a CPU trains, calibrates and scores with; 0 leaves PyTorch's choice, one a core. Latencies are measured with that choice
# always. Where DATA_LOADER.NUM_WORKERS read much beside it, leave them cores of their own: threads that wait for one which has lost its
# core take far longer than fewer threads.
_C.NUM_THREADS = Key(0, Integer(0, 4096), TAKES_EFFECT)
# Machines, in PySlowFast. torchrun starts the processes here, TRAIN.BATCH_SIZE is over all of them, and one line says so
# where this is above 1.
_C.NUM_SHARDS = Key(1, Integer(1, 10**4), TAKES_EFFECT)
# torch.distributed backend; gloo is taken when the run is on the CPU.
_C.DIST_BACKEND = Key("nccl", Only("nccl", "gloo"), TAKES_EFFECT)

# ---- What a mutual run adds --------------------------------------------------------------------------------------
_C.MUTUAL = Group()
# Train every configuration together. False trains the static network: the independently trained baseline.
_C.MUTUAL.ENABLE = Key(False, Flag(), IS_REFUSED)
# Min and max width multiplier.
_C.MUTUAL.WIDTH_RANGE = Key([0.63, 1.0], Each(WIDTH, 2, 2, ascending=True), IS_REFUSED)
# Channel counts round to a multiple of this.
_C.MUTUAL.WIDTH_DIVISOR = Key(8, Integer(1, 1024), IS_REFUSED)
# Input sides in pixels; the largest equals DATA.TRAIN_CROP_SIZE.
_C.MUTUAL.SPATIAL_SIZES = Key([142, 160, 192, 224], SIZES, IS_REFUSED)
# Frames; the largest equals DATA.NUM_FRAMES.
_C.MUTUAL.TEMPORAL_SIZES = Key([6, 9, 12, 16], Each(FRAMES, 0, 64, distinct=True), IS_REFUSED)
# (new) Which counts of channels may have a width of their own (US-Net, section 6), which the rule `random_widths` trains and
# `mutual3d slim` chooses: those of a stage together (stage), or of each layer whose outputs no residual sum ties to others' (layer).
# At one width for all, networks of the two are the same.
_C.MUTUAL.WIDTHS_BY = Key("stage", Only("stage", "layer"), IS_REFUSED)
# What runs in a step beside the largest configuration: names of mutual3d.sampling.RULES.
_C.MUTUAL.SUBNETS = Key(["smallest", "random"], Each(Registered("sampling rule"), 0, 64), IS_REFUSED)
# What a sub-network learns from: inplace_distillation (the largest configuration's output), labels, or, over all sizes, RS-Net's
# ensemble_distillation, and what it compares that with: ensemble_distillation_vanilla (the ensemble alone teaches),
# larger_size_distillation (each size teaches the smaller ones) and largest_size_distillation (the largest alone teaches).
_C.MUTUAL.OBJECTIVE = Key("inplace_distillation", Registered("objective"), IS_REFUSED)
# Norms: calibrated (shared; statistics of each configuration are computed after training), or private_width (S-Net), private_size (RS-Net)
# or private_frames (FFN): scale, shift and running statistics of its own for each of MUTUAL.WIDTHS, for each size, or for each of
# MUTUAL.TEMPORAL_SIZES. shared is what RS-Net compares these with: one width, and running statistics that every size of a step adds to and evaluates with.
_C.MUTUAL.BATCHNORM = Key("calibrated", Registered("kind of batch norm"), IS_REFUSED)
# (new) A depthwise 1x1x1 filter of its own for each of MUTUAL.TEMPORAL_SIZES before each residual block, whose output is added to its
# input (FFN's weight alteration). For networks of clips; SlowFast has them in both pathways, chosen by the Slow one's number of frames.
_C.MUTUAL.TEMPORAL_ADAPTERS = Key(False, Flag(), IS_REFUSED)
# (new) Layers average over the inputs that they have, times the number of all, so that features keep their scale at every width
# (US-Net, section 6). A norm, of features or of weights, undoes it: it is for the layers that have none.
_C.MUTUAL.AVERAGE_INPUTS = Key(False, Flag(), IS_REFUSED)
# Widths that the rule `each_width` trains and that private_width makes norms for; empty where neither is used.
_C.MUTUAL.WIDTHS = Key([], Each(WIDTH, 0, 1000, distinct=True), IS_REFUSED)
# Run the largest configuration in every step. False leaves what MUTUAL.SUBNETS draws: for ablations and baselines.
_C.MUTUAL.LARGEST = Key(True, Flag(), IS_REFUSED)
# (new) Keep running statistics of the narrowest configuration that every step runs too, and validate it beside the largest (US-Net,
# 3.2): what all others lie between. A line val_smallest_epoch of the log, and a curve of the report.
_C.MUTUAL.TRACK_SMALLEST = Key(False, Flag(), TAKES_EFFECT)
# Epochs, a fraction of one too, at the start in which the largest configuration trains alone: what it has not learned it cannot
# teach. The papers have none; short trainings from nothing gain much by it. It must be below SOLVER.MAX_EPOCH.
_C.MUTUAL.SUBNETS_START_EPOCH = Key(0.0, Number(0, 10**5, note="epochs"), IS_REFUSED)
# (new) Weight of a small loss by which the features before the classifier agree, at every configuration, with those of the step's first
# one (1 - cosine similarity): for features that are compared across configurations, `model.embed`. 0 leaves it out, as the papers do.
# For networks whose classifier reads as many features at every width (X3D, MobileNet v2 and v3).
_C.MUTUAL.FEATURE_LOSS = Key(0.0, Number(0, 1000, note="a weight"), IS_REFUSED)

# (new) Images: each size of a step sees a random crop of its own, of the same image, instead of the one that all see (RS-Net, Table 6,
# where it costs up to 1.3 points). With SUBNETS [each_size] and LARGEST False.
_C.MUTUAL.OWN_CROPS = Key(False, Flag(), IS_REFUSED)

_C.CALIBRATION = Group()
# Compute batch norm statistics of every configuration of the grid after training.
_C.CALIBRATION.ENABLE = Key(True, Flag(), TAKES_EFFECT)
# Clips that the statistics are computed on, spread evenly over the split; 0 takes all of them.
_C.CALIBRATION.NUM_CLIPS = Key(1024, Integer(0, 10**9), TAKES_EFFECT)
# Clips that are normalised together; the same for any number of processes.
_C.CALIBRATION.BATCH_SIZE = Key(32, COUNT, TAKES_EFFECT)
# Name of the csv they come from.
_C.CALIBRATION.SPLIT = Key("train", NAME, TAKES_EFFECT)
# How they are cut: test (centre clip, centre crop) or train (random, with a fixed seed).
_C.CALIBRATION.TRANSFORM = Key("test", Only("test", "train"), TAKES_EFFECT)
# Compute them too for configurations that training keeps running statistics of: widths with private_width and each_width, sizes with
# private_size and each_size, numbers of frames with private_frames and each_temporal, all sizes with shared. False measures those as their papers do, and computes the others alone.
_C.CALIBRATION.OWN_STATISTICS = Key(False, Flag(), TAKES_EFFECT)
# How batches are joined: exact (over the whole population) or moving (PyTorch's moving average; US-Net, Table 3).
_C.CALIBRATION.AVERAGE = Key("exact", Only("exact", "moving"), TAKES_EFFECT)

_C.GRID = Group()
# Measure every configuration and write the query table; of a static network its one, where it is trained.
_C.GRID.ENABLE = Key(True, Flag(), TAKES_EFFECT)
# Distance between the widths that are measured.
_C.GRID.WIDTH_STEP = Key(0.05, Number(0.001, 16, note="a multiple of the channels"), TAKES_EFFECT)
# Name of the csv that accuracy is measured on.
_C.GRID.SPLIT = Key("val", NAME, TAKES_EFFECT)
# Clips of a video, spread over time, whose scores are averaged; one centre crop each.
_C.GRID.NUM_VIEWS = Key(1, Integer(1, 1000), TAKES_EFFECT)
# Devices that latency, and whatever else depends on the device, is measured on: cpu, cuda. An empty list measures none.
_C.GRID.LATENCY_DEVICES = Key(["cpu"], Each(DEVICE, 0, 64, distinct=True), TAKES_EFFECT)
# Runtimes whose latency is measured beside that of PyTorch on the model's own weights, which all configurations have: the Pareto
# front over GFLOPs in each, since compiling takes seconds. What is not installed is left out, which a line says.
_C.GRID.RUNTIMES = Key(["torch", "openvino"], Each(Registered("runtime"), 0, 64, distinct=True), TAKES_EFFECT)
# What a configuration costs: names of mutual3d.cost.axes.COSTS. gflops and parameters are counted in any case.
_C.GRID.COSTS = Key(["gflops", "parameters", "latency_ms"], Each(Registered("cost"), 0, 64, distinct=True), TAKES_EFFECT)
# Configurations of a cascade (a dearer one runs only where the cheaper ones are not sure), at most: 0, 2 or 3. Rows of cascades
# are computed from the scores that the grid sees, for sets whose videos have one label; 0 computes none.
_C.GRID.CASCADES = Key(2, Only(0, 2, 3), TAKES_EFFECT)
# Spatial sizes measured beside the trained ones; private_size only. Norms and their statistics are interpolated between those of two
# trained sizes (RS-Net, 4.3), and outside them are those of the nearest one (RS-Net, Table 8): views are then cut larger in proportion,
# so that each trained size sees what it would have seen. CALIBRATION.OWN_STATISTICS True computes their statistics.
_C.GRID.INTERPOLATED_SIZES = Key([], SIZES, TAKES_EFFECT)
# (new) Numbers of frames measured beside the trained ones, below the largest: the nearest trained one's norms and adapters run, with
# its running statistics (FFN), of two as near the larger one's.
_C.GRID.UNSEEN_FRAMES = Key([], Each(FRAMES, 0, 64, distinct=True), TAKES_EFFECT)
# Timed runs of each configuration, in turns; the median is reported.
_C.GRID.LATENCY_REPEATS = Key(10, COUNT, TAKES_EFFECT)

# ---- Training ----------------------------------------------------------------------------------------------------
_C.TRAIN = Group()
_C.TRAIN.ENABLE = Key(True, Flag(), TAKES_EFFECT)
# kinetics (a csv of `path label` lines), charades, ava, ssv2, or images: image_folder, cifar10, cifar100, food101, indoor67,
# digits; div2k or photographs, of which small images are made large; nyudv2, images with a map of classes each; atari or minatar, games.
# ptvkinetics, ptvcharades and ptvssv2 are the same lists under PySlowFast's other names.
_C.TRAIN.DATASET = Key("kinetics", Registered("data set"), IS_REFUSED)
# Clips of a step, over all processes.
_C.TRAIN.BATCH_SIZE = Key(64, COUNT, IS_REFUSED)
# (new) Parts that a step's batch is computed in, one after the other, to save memory.
_C.TRAIN.ACCUMULATION_STEPS = Key(1, COUNT, IS_REFUSED)
# Epochs between two evaluations on val.csv.
_C.TRAIN.EVAL_PERIOD = Key(10, COUNT, TAKES_EFFECT)
# Epochs between two checkpoints.
_C.TRAIN.CHECKPOINT_PERIOD = Key(10, COUNT, TAKES_EFFECT)
# (new) Seconds between two checkpoints inside an epoch, of which the newest is kept until the next of an epoch; 0 writes none
# but where the run is asked to stop. Saving never takes more than a tenth of the time.
_C.TRAIN.CHECKPOINT_SECONDS = Key(900.0, Number(0, 10**7, note="seconds"), TAKES_EFFECT)
# (new) Checkpoints of finished epochs that are kept, the newest, of those that this run wrote; 0 or -1 keeps all.
_C.TRAIN.KEEP_CHECKPOINTS = Key(0, Integer(-1, 10**6), TAKES_EFFECT)
# (new) Minutes after which a run, in whatever stage it is, saves and ends as it does on SIGTERM: with status 75, and the same
# command goes on. 0 sets no limit.
_C.TRAIN.MAX_MINUTES = Key(0.0, Number(0, 10**6, note="minutes"), TAKES_EFFECT)
# Go on from the newest checkpoint in OUTPUT_DIR/checkpoints. False refuses a directory that has one.
_C.TRAIN.AUTO_RESUME = Key(True, Flag(), TAKES_EFFECT)
# (new) Go on from a checkpoint although the training set is not the one that it was trained on: its lists, labels or files
# are others, or lie elsewhere. False refuses.
_C.TRAIN.ALLOW_OTHER_DATA = Key(False, Flag(), TAKES_EFFECT)
# Weights to start from: a file of this project, PySlowFast, PyTorchVideo, Caffe2 or torchvision, recognised by its names.
_C.TRAIN.CHECKPOINT_FILE_PATH = Key("", PATH, IS_REFUSED)
# (new) Take those weights but for the classifier, which starts anew: for other classes.
_C.TRAIN.CHECKPOINT_RESET_HEAD = Key(False, Flag(), IS_REFUSED)
# caffe2 refuses a file of another kind; with pytorch, the default, the file itself says what it is.
_C.TRAIN.CHECKPOINT_TYPE = Key("pytorch", Only("pytorch", "caffe2"), IS_REFUSED)
# Repeat the kernels of a network of images over time, where that file has such: without it they are refused.
_C.TRAIN.CHECKPOINT_INFLATE = Key(False, Flag(), IS_REFUSED)
# Automatic mixed precision on the GPU or on a CPU that has bf16 units.
_C.TRAIN.MIXED_PRECISION = Key(False, Flag(), IS_TOLD)
# (new) bfloat16, or float16 (with a gradient scaler; GPU only).
_C.TRAIN.MIXED_PRECISION_DTYPE = Key("bfloat16", Only("bfloat16", "float16"), IS_TOLD)

# (new) Gradients cross processes as they are (none), or in half the bytes (bfloat16, PyTorch's hook of that name).
_C.TRAIN.GRADIENT_COMPRESSION = Key("none", Only("none", "bfloat16"), IS_TOLD)

# (new) Logits of another network, of any size and make, for each sample of the training list, in a file (docs/methods.md says which,
# and `mutual3d logits` writes it): whatever learns from the labels learns from them too. Empty learns from none.
_C.TRAIN.TEACHER_LOGITS = Key("", PATH, TAKES_EFFECT)
# (new) What their loss, the divergence from the teacher's probabilities, is multiplied by, beside that of the labels.
_C.TRAIN.TEACHER_WEIGHT = Key(1.0, Number(0, 1000, above=True, note="a weight"), IS_REFUSED)
# (new) What both networks' logits are divided by before they become these probabilities; above 1 the teacher says more of the classes that
# it is not sure of.
_C.TRAIN.TEACHER_TEMPERATURE = Key(1.0, Number(0.01, 1000, note="a temperature"), IS_REFUSED)

_C.TEST = Group()
_C.TEST.ENABLE = Key(True, Flag(), TAKES_EFFECT)
_C.TEST.DATASET = Key("kinetics", Registered("data set"), IS_REFUSED)
# Clips of a batch, over all processes, in evaluation: a multi-view test loads as many videos as have so many views.
_C.TEST.BATCH_SIZE = Key(8, COUNT, TAKES_EFFECT)
# (new) Name of the csv that the multi-view test reads; empty takes the data set's own: test, or val where the published test
# set has no labels (charades, ava, ssv2).
_C.TEST.SPLIT = Key("", PATH, TAKES_EFFECT)
# Weights to test where TRAIN.ENABLE is False; empty takes the run's own.
_C.TEST.CHECKPOINT_FILE_PATH = Key("", PATH, TAKES_EFFECT)
_C.TEST.CHECKPOINT_TYPE = Key("pytorch", Only("pytorch", "caffe2"), TAKES_EFFECT)
# Clips of a video, spread over time.
_C.TEST.NUM_ENSEMBLE_VIEWS = Key(10, Integer(1, 1000), TAKES_EFFECT)
# Crops of a clip along its long side: 1 or 3.
_C.TEST.NUM_SPATIAL_CROPS = Key(3, Only(1, 3), TAKES_EFFECT)
# Where the scores of every video are written; empty writes none.
_C.TEST.SAVE_RESULTS_PATH = Key("", PATH, TAKES_EFFECT)
# (new) Configurations that the multi-view test runs; empty runs the largest.
_C.TEST.CONFIGURATIONS = Key([], Each(NAME, 0, 10**4, distinct=True), TAKES_EFFECT)

_C.SOLVER = Group()
_C.SOLVER.BASE_LR = Key(0.1, RATE, TAKES_EFFECT)
# cosine, linear (to 0 at MAX_EPOCH; new), or steps_with_relative_lrs (LRS relative to BASE_LR from the epochs STEPS on).
_C.SOLVER.LR_POLICY = Key("cosine", Only("cosine", "linear", "steps_with_relative_lrs"), TAKES_EFFECT)
_C.SOLVER.COSINE_END_LR = Key(0.0, RATE, TAKES_EFFECT)
# Start the cosine at the end of warm-up instead of at epoch 0.
_C.SOLVER.COSINE_AFTER_WARMUP = Key(False, Flag(), TAKES_EFFECT)
_C.SOLVER.STEPS = Key([], Each(Number(0, 10**6), 0, 1000, ascending=True), TAKES_EFFECT)
_C.SOLVER.LRS = Key([], Each(Number(0, 1000), 0, 1000), TAKES_EFFECT)
_C.SOLVER.MAX_EPOCH = Key(300, COUNT, TAKES_EFFECT)
_C.SOLVER.MOMENTUM = Key(0.9, Number(0, 1, below=True), TAKES_EFFECT)
_C.SOLVER.DAMPENING = Key(0.0, Number(0, 1), TAKES_EFFECT)
_C.SOLVER.NESTEROV = Key(True, Flag(), TAKES_EFFECT)
_C.SOLVER.WEIGHT_DECAY = Key(1e-4, Number(0, 1), TAKES_EFFECT)
# No decay on parameters of one dimension.
_C.SOLVER.ZERO_WD_1D_PARAM = Key(False, Flag(), IS_REFUSED)
# (new) No decay on the filters of depthwise convolutions (MobileNet v1, 3.2).
_C.SOLVER.ZERO_WD_DEPTHWISE = Key(False, Flag(), IS_REFUSED)
# Epochs of linear warm-up, and the rate it starts at.
_C.SOLVER.WARMUP_EPOCHS = Key(0.0, Number(0, 10**6, note="epochs"), TAKES_EFFECT)
_C.SOLVER.WARMUP_START_LR = Key(0.01, RATE, TAKES_EFFECT)
# sgd, which MOMENTUM, DAMPENING and NESTEROV are of, or adam or adamw, which BETAS are of.
_C.SOLVER.OPTIMIZING_METHOD = Key("sgd", Only("sgd", "adam", "adamw"), IS_REFUSED)
_C.SOLVER.BETAS = Key([0.9, 0.999], Each(Number(0, 1, below=True), 2, 2), TAKES_EFFECT)
# PySlowFast's; without effect: torchrun starts the processes, and BASE_LR is of TRAIN.BATCH_SIZE over all of them.
_C.SOLVER.BASE_LR_SCALE_NUM_SHARDS = Key(False, Flag(), TAKES_EFFECT)
# Clip gradients: by value, or by the L2 norm of all of them. 0 clips nothing; so does None, as in PySlowFast.
_C.SOLVER.CLIP_GRAD_VAL = Key(0.0, Number(0, 10**9), TAKES_EFFECT)
_C.SOLVER.CLIP_GRAD_L2NORM = Key(0.0, Number(0, 10**9), TAKES_EFFECT)

# ---- Data --------------------------------------------------------------------------------------------------------
_C.DATA = Group()
# The directory of train.csv, val.csv and test.csv.
_C.DATA.PATH_TO_DATA_DIR = Key("", PATH, TAKES_EFFECT)
# Put before every path of a csv; empty reads paths from the csv's own directory.
_C.DATA.PATH_PREFIX = Key("", PATH, TAKES_EFFECT)
_C.DATA.PATH_LABEL_SEPARATOR = Key(" ", NAME, TAKES_EFFECT)
# (new) Names of the classes, one a line or as json; empty takes classes.txt beside the csv files, if it is there.
_C.DATA.CLASS_NAMES_PATH = Key("", PATH, TAKES_EFFECT)
# Frames of a clip, and the distance between two of them at TARGET_FPS.
_C.DATA.NUM_FRAMES = Key(8, FRAMES, IS_REFUSED)
_C.DATA.SAMPLING_RATE = Key(8, Integer(1, 10**4), IS_REFUSED)
_C.DATA.TARGET_FPS = Key(30, Integer(1, 1000), IS_REFUSED)
# Channels of the input, per pathway: 3 for each, but for games, whose pictures have others.
_C.DATA.INPUT_CHANNEL_NUM = Key([3, 3], Each(Integer(1, 64), 1, 2), TAKES_EFFECT)
# Of pixels in [0, 1], per channel.
_C.DATA.MEAN = Key([0.45, 0.45, 0.45], Each(Number(0, 1, note="of pixels in [0, 1]"), 1, 64), IS_REFUSED)
_C.DATA.STD = Key([0.225, 0.225, 0.225], Each(Number(0.001, 1, note="of pixels in [0, 1]"), 1, 64), IS_REFUSED)
# Min and max short side that a training video is resized to before the crop.
_C.DATA.TRAIN_JITTER_SCALES = Key([256, 320], Each(SIDE, 2, 2, ascending=True), IS_REFUSED)
# Images: min and max share of the area, and aspect ratio, of a random crop that is resized; an empty list crops as
# TRAIN_JITTER_SCALES says.
_C.DATA.TRAIN_JITTER_SCALES_RELATIVE = Key([], AREAS, IS_REFUSED)
_C.DATA.TRAIN_JITTER_ASPECT_RELATIVE = Key([], ASPECTS, IS_REFUSED)
# (new) Images: strength of random brightness, contrast and saturation.
_C.DATA.COLOR_JITTER = Key(0.0, Share(), IS_REFUSED)
# (new) Images: pixels added on each side before the random crop, as is done with CIFAR.
_C.DATA.CROP_PADDING = Key(0, Integer(0, 1024), IS_REFUSED)
_C.DATA.TRAIN_JITTER_MOTION_SHIFT = Key(False, Only(False), IS_REFUSED)
_C.DATA.TRAIN_CROP_SIZE = Key(224, SIDE, IS_REFUSED)
# Side of a test view; a smaller configuration sees the same view shrunk in proportion.
_C.DATA.TEST_CROP_SIZE = Key(256, SIDE, TAKES_EFFECT)
# Draw 1 / scale uniformly instead of the scale.
_C.DATA.INV_UNIFORM_SAMPLE = Key(False, Flag(), IS_REFUSED)
_C.DATA.RANDOM_FLIP = Key(True, Flag(), IS_REFUSED)
# Spread test clips from the first to the last position instead of stopping one short.
_C.DATA.USE_OFFSET_SAMPLING = Key(False, Flag(), TAKES_EFFECT)
# What decodes videos: pyav, decord or torchcodec (extras), or auto, the fastest installed one; frames are the same by their
# numbers. torchvision, as in PySlowFast's files, means pyav.
_C.DATA.DECODING_BACKEND = Key("pyav", Only("pyav", "decord", "torchcodec", "auto", "torchvision"), IS_REFUSED)
# Take videos whose container announces over 20 % more frames than there are (cut off, or damaged) instead of counting them bad.
_C.DATA.TOLERATE_SHORT = Key(False, Flag(), IS_TOLD)
# (new) Folder of decoded frames, which `mutual3d prepare` makes of a small set; "" decodes the videos in every epoch. With frames
# as decoded the clips are the same, bit for bit; with copies (--short-side) they are resized once more.
_C.DATA.CACHE = Key("", PATH, IS_TOLD)
# How scores of views are joined: sum or max.
_C.DATA.ENSEMBLE_METHOD = Key("sum", Only("sum", "max"), TAKES_EFFECT)
# Several labels a clip (Charades): scores are sigmoids, accuracy is mean average precision.
_C.DATA.MULTI_LABEL = Key(False, Flag(), IS_REFUSED)
# Turn the channels round, after MEAN and STD: the network sees BGR instead of RGB. Frames of charades and ssv2 PySlowFast
# reads as BGR, and turns into RGB so; here they are RGB with either value.
_C.DATA.REVERSE_INPUT_CHANNEL = Key(False, Flag(), IS_REFUSED)

# Clips of training, beside crop and flip: every operation is the same in all frames of a clip, and every sub-network sees the same
# clip. Off in the papers' recipes.
_C.AUG = Group()
_C.AUG.ENABLE = Key(False, Flag(), IS_REFUSED)
# RandAugment in timm's words: m the magnitude from 0 to 10, n the number of operations (2), mstd the magnitude's deviation (0), p the
# probability of each operation (0.5), inc1 operations that grow with the magnitude, as all do here. Or (new) a policy of AutoAugment:
# autoaugment-imagenet, autoaugment-cifar10 (for CIFAR-100 too) or autoaugment-svhn. Empty for none.
_C.AUG.AA_TYPE = Key("rand-m9-mstd0.5-inc1", Text(), IS_REFUSED)
# Probability that a rectangle of a clip is erased, and what it becomes: const the mean colour, rand one random colour, pixel noise.
_C.AUG.RE_PROB = Key(0.25, Share(), IS_REFUSED)
_C.AUG.RE_MODE = Key("pixel", Only("pixel", "rand", "const"), IS_REFUSED)
_C.AUG.RE_COUNT = Key(1, Only(1), IS_REFUSED)
# (new) Cutout: side, in pixels, of a square of the mean colour whose centre is anywhere in the crop; 0 for none.
_C.AUG.CUTOUT = Key(0, Integer(0, 10**4), IS_REFUSED)
# Times that a video is in a batch.
_C.AUG.NUM_SAMPLE = Key(1, Only(1, instead="raise TRAIN.BATCH_SIZE"), IS_REFUSED)

_C.MIXUP = Group()
# Soft labels, and clips that are each two of the batch: with PROB, by mixup (ALPHA of its Beta distribution; 0 for none) or CutMix
# (CUTMIX_ALPHA), which is taken with SWITCH_PROB where both are. With PROB 0 labels are smoothed, and nothing is mixed.
_C.MIXUP.ENABLE = Key(False, Flag(), IS_REFUSED)
_C.MIXUP.ALPHA = Key(0.8, Number(0, 1000), IS_REFUSED)
_C.MIXUP.CUTMIX_ALPHA = Key(1.0, Number(0, 1000), IS_REFUSED)
_C.MIXUP.PROB = Key(1.0, Share(), IS_REFUSED)
_C.MIXUP.SWITCH_PROB = Key(0.5, Share(), IS_REFUSED)
# Share of a label that is spread over all classes; where a clip has several, each moves so far towards one half.
_C.MIXUP.LABEL_SMOOTH_VALUE = Key(0.1, Share(), IS_REFUSED)

_C.DATA_LOADER = Group()
# Worker processes of each process. With 0 it decodes itself, and a decoder's crash is its own.
_C.DATA_LOADER.NUM_WORKERS = Key(8, Integer(0, 1024), TAKES_EFFECT)
# (new) Seconds that a worker may take for one video before the video counts as unreadable and the worker is started again;
# 0 waits for ever. With 0 workers nothing is timed out.
_C.DATA_LOADER.TIMEOUT = Key(300.0, Number(0, 86400, note="seconds"), TAKES_EFFECT)
_C.DATA_LOADER.PIN_MEMORY = Key(True, Flag(), TAKES_EFFECT)
# (new) Share of videos that may be unreadable before a run stops: in training, and in evaluation.
_C.DATA_LOADER.MAX_UNREADABLE_TRAIN = Key(0.01, Share(), IS_TOLD)
_C.DATA_LOADER.MAX_UNREADABLE_TEST = Key(0.0, Share(), TAKES_EFFECT)

# ---- Networks ----------------------------------------------------------------------------------------------------
_C.MODEL = Group()
# Network: a word of mutual3d.models.NETWORKS.
_C.MODEL.MODEL_NAME = Key("SlowFast", Registered("network"), IS_REFUSED)
# Kind of a ResNet: slow, c2d or i3d (c2d_nopool and i3d_nopool keep all frames after res2); a SlowFast's and X3D's own; what a MaskRCNN
# is built on.
_C.MODEL.ARCH = Key("slowfast", NAME, IS_REFUSED)
_C.MODEL.NUM_CLASSES = Key(400, COUNT, IS_REFUSED)
# cross_entropy (or soft_cross_entropy, PySlowFast's word for soft labels, which cross_entropy takes too), or for several labels bce_logit or bce; heads return logits, so that both are the same thing here.
# pixel_cross_entropy for maps of classes: each pixel is a sample, and those without a label are none.
_C.MODEL.LOSS_FUNC = Key("cross_entropy", Registered("loss function"), IS_REFUSED)
# What turns logits into scores in evaluation: softmax or sigmoid; it must go with LOSS_FUNC.
_C.MODEL.HEAD_ACT = Key("softmax", Only("softmax", "sigmoid", "none"), TAKES_EFFECT)
_C.MODEL.DROPOUT_RATE = Key(0.5, Share(below=True), IS_REFUSED)
_C.MODEL.DROPCONNECT_RATE = Key(0.0, Only(0.0), IS_REFUSED)
_C.MODEL.FC_INIT_STD = Key(0.01, Number(0, 100), IS_REFUSED)
# (new) MobileNets, ImageResNet and VGG16 for images of about 32 pixels: without their first two halvings. A ResNet's first
# convolution is then 3x3.
_C.MODEL.SMALL_IMAGES = Key(False, Flag(), IS_REFUSED)

# (new) Calibrate, measure, test and keep the exponential moving average of the weights over the steps (timm's model EMA) instead of
# the last ones; a checkpoint holds both. Of each step's average EMA_DECAY stays: at first less, (1 + n) / (10 + n) after n steps.
_C.MODEL.EMA = Key(False, Flag(), IS_REFUSED)
_C.MODEL.EMA_DECAY = Key(0.9998, Number(0, 1, below=True), IS_TOLD)

_C.MODEL.QUANTIZE = Group()
# (new) Bits of the weights and of the inputs of every convolution but those that read pixels and those of squeeze-excite, by learned
# quantisers (LQ-Nets); the linear classifier and all norms stay whole. 32 leaves them as they are. The RS-Net paper (4.2) has 2 of
# weights, and 32 or 2 of activations, whose quantisers each size has for itself.
_C.MODEL.QUANTIZE.WEIGHT_BITS = Key(32, BITS, IS_REFUSED)
_C.MODEL.QUANTIZE.ACTIVATION_BITS = Key(32, BITS, IS_REFUSED)

_C.X3D = Group()
_C.X3D.WIDTH_FACTOR = Key(1.0, Number(0.1, 100), IS_REFUSED)
_C.X3D.DEPTH_FACTOR = Key(1.0, Number(0.1, 100), IS_REFUSED)
# Inner channels of a block over its outer ones.
_C.X3D.BOTTLENECK_FACTOR = Key(1.0, Number(0.25, 100), IS_REFUSED)
_C.X3D.DIM_C1 = Key(12, CHANNELS, IS_REFUSED)
_C.X3D.DIM_C5 = Key(2048, CHANNELS, IS_REFUSED)
_C.X3D.SCALE_RES2 = Key(False, Flag(), IS_REFUSED)
_C.X3D.BN_LIN5 = Key(False, Only(False), IS_REFUSED)
_C.X3D.CHANNELWISE_3x3x3 = Key(True, Only(True), IS_REFUSED)

_C.RESNET = Group()
_C.RESNET.TRANS_FUNC = Key("bottleneck_transform", Only("bottleneck_transform", "x3d_transform"), IS_REFUSED)
_C.RESNET.NUM_GROUPS = Key(1, Only(1), IS_REFUSED)
_C.RESNET.WIDTH_PER_GROUP = Key(64, CHANNELS, IS_REFUSED)
_C.RESNET.STRIDE_1X1 = Key(False, Only(False), IS_REFUSED)
# Start every residual branch at zero.
_C.RESNET.ZERO_INIT_FINAL_BN = Key(False, Flag(), IS_REFUSED)
_C.RESNET.DEPTH = Key(50, Integer(1, 10**4), IS_REFUSED)
# (new) ImageResNet: squeeze-excite in every block, with one in so many of its channels inside (16: SE-ResNet); 0 for none.
_C.RESNET.SE_REDUCTION = Key(0, Integer(0, 1024), IS_REFUSED)
_C.RESNET.NUM_BLOCK_TEMP_KERNEL = Key([[3], [4], [6], [3]], BLOCKS, IS_REFUSED)
_C.RESNET.SPATIAL_STRIDES = Key([[1], [2], [2], [2]], STAGES, IS_REFUSED)
_C.RESNET.SPATIAL_DILATIONS = Key([[1], [1], [1], [1]], STAGES, IS_REFUSED)

_C.SLOWFAST = Group()
_C.SLOWFAST.BETA_INV = Key(8, Integer(1, 1024), IS_REFUSED)
_C.SLOWFAST.ALPHA = Key(8, Integer(1, 1024), IS_REFUSED)
_C.SLOWFAST.FUSION_CONV_CHANNEL_RATIO = Key(2, Integer(1, 1024), IS_REFUSED)
_C.SLOWFAST.FUSION_KERNEL_SZ = Key(5, Integer(1, 101), IS_REFUSED)

_C.NONLOCAL = Group()
# Blocks with non-local layers: none are supported.
_C.NONLOCAL.LOCATION = Key([[[]], [[]], [[]], [[]]], NO_BLOCKS, IS_REFUSED)

_C.BN = Group()
_C.BN.MOMENTUM = Key(0.1, Only(0.1), IS_REFUSED)
_C.BN.EPSILON = Key(1e-5, Only(1e-5), IS_REFUSED)
# A static network: before each checkpoint and each evaluation on val.csv its norms' running statistics become those of
# NUM_BATCHES_PRECISE batches of TRAIN.BATCH_SIZE training clips, exactly, the same for any number of processes. A mutual network's are
# computed after training, as CALIBRATION says.
_C.BN.USE_PRECISE_STATS = Key(False, Flag(), TAKES_EFFECT)
_C.BN.NUM_BATCHES_PRECISE = Key(200, COUNT, TAKES_EFFECT)
# Weight decay of norms.
_C.BN.WEIGHT_DECAY = Key(0.0, Number(0, 1), TAKES_EFFECT)
# Whose clips a norm takes as one batch in training: those of its process (batchnorm), of NUM_SYNC_DEVICES processes
# (sync_batchnorm), or each of NUM_SPLITS parts of its process's (sub_batchnorm).
_C.BN.NORM_TYPE = Key("batchnorm", Only("batchnorm", "sync_batchnorm", "sub_batchnorm"), IS_REFUSED)
# sub_batchnorm: part k is every NUM_SPLITS-th clip from clip k on.
_C.BN.NUM_SPLITS = Key(1, COUNT, IS_REFUSED)
# sync_batchnorm: consecutive processes that share their statistics; where there are fewer, all of them do.
_C.BN.NUM_SYNC_DEVICES = Key(1, COUNT, IS_TOLD)
# sync_batchnorm: all processes do, whatever NUM_SYNC_DEVICES is.
_C.BN.GLOBAL_SYNC = Key(False, Flag(), IS_TOLD)

_C.MOBILENET = Group()
# (new) MobileNetV1: layers of each resolution times this, rounded up (compound scaling: EfficientNet, 3.3).
_C.MOBILENET.DEPTH_FACTOR = Key(1.0, Number(0, 50, above=True), IS_REFUSED)

_C.WIDERESNET = Group()
# (new) Layers and widening factor of a WideResNet.
_C.WIDERESNET.DEPTH = Key(28, Integer(10, 10**4), IS_REFUSED)
_C.WIDERESNET.WIDEN_FACTOR = Key(10, Integer(1, 100), IS_REFUSED)

# (new) A WDSR, which makes small images large: channels between its blocks at width 1.0, how many blocks, and how many times more
# channels are activated inside one.
_C.WDSR = Group()
_C.WDSR.NUM_FEATURES = Key(64, CHANNELS, IS_REFUSED)
_C.WDSR.NUM_BLOCKS = Key(8, Integer(1, 1000), IS_REFUSED)
_C.WDSR.EXPANSION = Key(4, Integer(1, 64), IS_REFUSED)
# Begin as bicubic interpolation instead of at random, as is published: of 430 steps by l2 on the photographs, those from a random start
# ended at 32.6 dB, and bicubic interpolation has 35.2.
_C.WDSR.BICUBIC_START = Key(False, Flag(), IS_REFUSED)

_C.SUPER_RESOLUTION = Group()
# (new) How many times larger the sides of the image are that is to be found (datasets/DIV2K.md).
_C.SUPER_RESOLUTION.SCALE = Key(2, Integer(2, 8), IS_REFUSED)
# (new) Patches that an epoch cuts out of each training image, each of DATA.TRAIN_CROP_SIZE pixels before it is enlarged.
_C.SUPER_RESOLUTION.PATCHES_PER_IMAGE = Key(20, Integer(1, 10**5), IS_REFUSED)

_C.VGG = Group()
# (new) Channels of VGG-16's first stage, and of its two hidden linear layers.
_C.VGG.WIDTH_PER_GROUP = Key(64, CHANNELS, IS_REFUSED)
_C.VGG.DIM_FC = Key(4096, CHANNELS, IS_REFUSED)

# (new) A policy: channels, kernel sizes and strides of its convolutions, and features of its linear layer, all at width 1.0.
_C.POLICY = Group()
_C.POLICY.CHANNELS = Key([32, 64, 32], Each(CHANNELS, 1, 16), IS_REFUSED)
_C.POLICY.KERNEL_SIZES = Key([8, 4, 3], Each(Integer(1, 63), 1, 16), IS_REFUSED)
_C.POLICY.STRIDES = Key([4, 2, 1], Each(Integer(1, 16), 1, 16), IS_REFUSED)
_C.POLICY.NUM_FEATURES = Key(512, CHANNELS, IS_REFUSED)

# (new) Games that a policy learns (datasets/ATARI.md), by proximal policy optimization; the defaults are its paper's for Atari.
_C.CONTROL = Group()
# Of TRAIN.DATASET atari a name of gymnasium's, of minatar asterix, breakout, freeway, seaquest or space_invaders.
_C.CONTROL.GAME = Key("BreakoutNoFrameskip-v4", NAME, IS_REFUSED)
# Games that are played side by side, over all processes, and steps of each before the policy learns from them: a roll-out, which
# TRAIN.BATCH_SIZE divides.
_C.CONTROL.NUM_GAMES = Key(8, Integer(1, 10**4), IS_REFUSED)
_C.CONTROL.STEPS = Key(128, Integer(1, 10**5), IS_REFUSED)
# How often each step is learned from.
_C.CONTROL.PASSES = Key(3, Integer(1, 1000), IS_REFUSED)
# Roll-outs of an epoch, which begins with new games: enough of them that games come to their end.
_C.CONTROL.ROLLOUTS = Key(100, COUNT, IS_REFUSED)
# What a reward is worth a step earlier, and lambda of the advantages.
_C.CONTROL.DISCOUNT = Key(0.99, Number(0, 1), IS_REFUSED)
_C.CONTROL.TRACE = Key(0.95, Number(0, 1), IS_REFUSED)
# How far from 1 the ratio of an action's probabilities pays; it falls linearly to 0 at SOLVER.MAX_EPOCH.
_C.CONTROL.CLIP_RANGE = Key(0.1, Number(0, 1, above=True), IS_REFUSED)
# Steps after which an episode ends in any case, of four frames each in Atari: half an hour of its time.
_C.CONTROL.MAX_STEPS = Key(27000, COUNT, IS_REFUSED)
# Episodes that validation, the grid and the test play at each configuration.
_C.CONTROL.EPISODES = Key(100, Integer(2, 10**6), TAKES_EFFECT)

_C.REFINENET = Group()
# (new) Channels of RefineNets 1 to 3; the fourth, of the coarsest map, has twice as many.
_C.REFINENET.CHANNELS = Key(256, CHANNELS, IS_REFUSED)

_C.DETECTION = Group()
# Classify the boxes of a clip (AVA) instead of the clip.
_C.DETECTION.ENABLE = Key(False, Flag(), IS_REFUSED)
# RoIAlign with pixel centres half a pixel further to the left; False is its older rule, of Caffe2's weights.
_C.DETECTION.ALIGNED = Key(True, Flag(), IS_REFUSED)
# PySlowFast's; not read: a pathway's scale is the size of its features over that of its input.
_C.DETECTION.SPATIAL_SCALE_FACTOR = Key(16, Integer(1, 1024), TAKES_EFFECT)
# Side of the grid that a box's features are pooled to.
_C.DETECTION.ROI_XFORM_RESOLUTION = Key(7, Integer(1, 100), IS_REFUSED)

# ---- AVA -----------------------------------------------------------------------------------------------------------
_C.AVA = Group()
# Where the frames lie (frame lists name them relative to it), the frame lists, and the annotations.
_C.AVA.FRAME_DIR = Key("", PATH, TAKES_EFFECT)
_C.AVA.FRAME_LIST_DIR = Key("", PATH, TAKES_EFFECT)
_C.AVA.ANNOTATION_DIR = Key("", PATH, TAKES_EFFECT)
# Frame lists in FRAME_LIST_DIR of the two splits.
_C.AVA.TRAIN_LISTS = Key(["train.csv"], FILES, IS_TOLD)
_C.AVA.TEST_LISTS = Key(["val.csv"], FILES, TAKES_EFFECT)
# In ANNOTATION_DIR: boxes that people drew, boxes that a detector found, and boxes to score in evaluation.
_C.AVA.TRAIN_GT_BOX_LISTS = Key(["ava_train_v2.2.csv"], FILES, IS_TOLD)
_C.AVA.TRAIN_PREDICT_BOX_LISTS = Key([], FILES, IS_TOLD)
_C.AVA.TEST_PREDICT_BOX_LISTS = Key(["ava_val_predicted_boxes.csv"], FILES, TAKES_EFFECT)
# Detected boxes below this score are left out.
_C.AVA.DETECTION_SCORE_THRESH = Key(0.9, Share(), IS_REFUSED)
# In ANNOTATION_DIR: the evaluated classes, the timestamps that do not count, and what results are compared with.
_C.AVA.LABEL_MAP_FILE = Key("ava_action_list_v2.2_for_activitynet_2019.pbtxt", NAME, TAKES_EFFECT)
_C.AVA.EXCLUSION_FILE = Key("ava_val_excluded_timestamps_v2.2.csv", NAME, TAKES_EFFECT)
_C.AVA.GROUNDTRUTH_FILE = Key("ava_val_v2.2.csv", NAME, TAKES_EFFECT)
# (new) Frames a second of the extracted frames, and the second that frame 0 shows.
_C.AVA.FPS = Key(30, Integer(1, 1000), IS_REFUSED)
_C.AVA.FIRST_SECOND = Key(900, Integer(0, 10**6), IS_REFUSED)

# ---- Objects in images (new) -----------------------------------------------------------------------------------------
_C.MASK_RCNN = Group()
# MODEL.MODEL_NAME MaskRCNN is built on MODEL.ARCH: resnet (RESNET.DEPTH, RESNET.WIDTH_PER_GROUP), mobilenet_v1, mobilenet_v2 or vgg16
# (VGG.WIDTH_PER_GROUP). Sides of anchors in pixels of the network's input, one for each level of the pyramid.
_C.MASK_RCNN.ANCHOR_SIZES = Key([32, 64, 128, 256, 512], Each(Integer(1, 8192), 5, 5), IS_REFUSED)
# Channels of every level, features of the layers that classify a box, and channels of those that draw its mask: torchvision's, or fewer.
_C.MASK_RCNN.PYRAMID_CHANNELS = Key(256, Integer(1, 4096), IS_REFUSED)
_C.MASK_RCNN.BOX_FEATURES = Key(1024, Integer(1, 65536), IS_REFUSED)
_C.MASK_RCNN.MASK_CHANNELS = Key(256, Integer(1, 4096), IS_REFUSED)
# Boxes of an image that are looked at, at most, and objects that are found; in training twice as many boxes are proposed, and SAMPLED_BOXES
# of them learned from.
_C.MASK_RCNN.NUM_PROPOSALS = Key(1000, Integer(1, 10**5), IS_REFUSED)
_C.MASK_RCNN.NUM_DETECTIONS = Key(100, Integer(1, 10**5), IS_REFUSED)
_C.MASK_RCNN.SAMPLED_BOXES = Key(512, Integer(1, 10**5), IS_REFUSED)

_C.COCO = Group()
# Files of annotations and folders of images of the two splits; relative ones start at DATA.PATH_TO_DATA_DIR. Every split but `train` is VAL_*.
_C.COCO.TRAIN_ANNOTATIONS = Key("annotations/instances_train2017.json", NAME, IS_TOLD)
_C.COCO.TRAIN_IMAGES = Key("train2017", NAME, IS_TOLD)
_C.COCO.VAL_ANNOTATIONS = Key("annotations/instances_val2017.json", NAME, TAKES_EFFECT)
_C.COCO.VAL_IMAGES = Key("val2017", NAME, TAKES_EFFECT)
# An image is resized to a short side of DATA.TRAIN_CROP_SIZE (DATA.TEST_CROP_SIZE), or less where its long side would be above this.
_C.COCO.MAX_LONG_SIDE = Key(1000, SIDE, IS_REFUSED)

_C.TENSORBOARD = Group()
# Write loss, rates and accuracy for TensorBoard (`pip install -e .[tensorboard]`).
_C.TENSORBOARD.ENABLE = Key(False, Flag(), TAKES_EFFECT)
# Empty writes to OUTPUT_DIR/runs-{TRAIN.DATASET}.
_C.TENSORBOARD.LOG_DIR = Key("", PATH, TAKES_EFFECT)


KEYS = declared(_C)
DEFAULTS = defaults_of(_C)
