"""Every config key with its default and its meaning. Names are PySlowFast's; what is new sits under MUTUAL, CALIBRATION
and GRID, and is marked (new) where it stands among PySlowFast's."""

from .node import CfgNode

_C = CfgNode()

# Where everything that a run makes is written.
_C.OUTPUT_DIR = "./out"
# Seed of weights, shuffling, augmentation and sub-network sampling.
_C.RNG_SEED = 1
# Iterations between two json_stats lines of training.
_C.LOG_PERIOD = 10
# (new) Seconds between two saves of what calibration and the grid have so far; a killed stage goes on from there.
_C.PARTIAL_SAVE_SECONDS = 20.0
# 0 runs on the CPU. Otherwise a GPU is used where there is one; several are used by `torchrun --nproc_per_node N`.
_C.NUM_GPUS = 1
# 1: torchrun says how many machines and processes run, and TRAIN.BATCH_SIZE is over all of them.
_C.NUM_SHARDS = 1
# torch.distributed backend; gloo is taken when the run is on the CPU.
_C.DIST_BACKEND = "nccl"

# ---- What a mutual run adds --------------------------------------------------------------------------------------
_C.MUTUAL = CfgNode()
# Train every configuration together. False trains the static network: the independently trained baseline.
_C.MUTUAL.ENABLE = False
# Least and greatest width multiplier.
_C.MUTUAL.WIDTH_RANGE = [0.63, 1.0]
# Channel counts round to a multiple of this.
_C.MUTUAL.WIDTH_DIVISOR = 8
# Input sides in pixels; the largest equals DATA.TRAIN_CROP_SIZE.
_C.MUTUAL.SPATIAL_SIZES = [142, 160, 192, 224]
# Frames; the largest equals DATA.NUM_FRAMES.
_C.MUTUAL.TEMPORAL_SIZES = [6, 9, 12, 16]
# What runs in a step beside the largest configuration: names of mutual3d.sampling.RULES.
_C.MUTUAL.SUBNETS = ["smallest", "random"]
# What a sub-network learns from: inplace_distillation (the largest configuration's output), labels, or
# ensemble_distillation and ensemble_distillation_vanilla (RS-Net's two losses, over all sizes).
_C.MUTUAL.OBJECTIVE = "inplace_distillation"
# Norms: calibrated (shared; statistics of each configuration are computed after training), or private_width (S-Net) or
# private_size (RS-Net): scale, shift and running statistics of its own for each of MUTUAL.WIDTHS, or for each size.
_C.MUTUAL.BATCHNORM = "calibrated"
# Widths that the rule `each_width` trains and that private_width makes norms for; empty where neither is used.
_C.MUTUAL.WIDTHS = []
# Run the largest configuration in every step. False leaves what MUTUAL.SUBNETS draws: for ablations and baselines.
_C.MUTUAL.LARGEST = True

_C.CALIBRATION = CfgNode()
# Compute batch norm statistics of every configuration of the grid after training.
_C.CALIBRATION.ENABLE = True
# Clips that the statistics are computed on, spread evenly over the split; 0 takes all of them.
_C.CALIBRATION.NUM_CLIPS = 1024
# Clips that are normalised together; the same for any number of processes.
_C.CALIBRATION.BATCH_SIZE = 32
# Name of the csv they come from.
_C.CALIBRATION.SPLIT = "train"
# How they are cut: test (centre clip, centre crop) or train (random, with a fixed seed).
_C.CALIBRATION.TRANSFORM = "test"
# How batches are joined: exact (over the whole population) or moving (PyTorch's moving average; US-Net, Table 3).
_C.CALIBRATION.AVERAGE = "exact"

_C.GRID = CfgNode()
# Measure every configuration and write the query table.
_C.GRID.ENABLE = True
# Distance between the widths that are measured.
_C.GRID.WIDTH_STEP = 0.05
# Name of the csv that accuracy is measured on.
_C.GRID.SPLIT = "val"
# Clips of a video, spread over time, whose scores are averaged; one centre crop each.
_C.GRID.NUM_VIEWS = 1
# Devices that latency is measured on: cpu, cuda. An empty list measures none.
_C.GRID.LATENCY_DEVICES = ["cpu"]
# Spatial sizes measured beside the trained ones; private_size only, whose norms are interpolated (RS-Net, 4.3). Their
# statistics are interpolated too with CALIBRATION.ENABLE False, and else calibrated.
_C.GRID.INTERPOLATED_SIZES = []
# Timed runs of each configuration, in turns; the median is reported.
_C.GRID.LATENCY_REPEATS = 10

# ---- Training ----------------------------------------------------------------------------------------------------
_C.TRAIN = CfgNode()
_C.TRAIN.ENABLE = True
# kinetics (a csv of `path label` lines), charades, ava, or images: image_folder, cifar10, cifar100, food101, indoor67,
# digits.
_C.TRAIN.DATASET = "kinetics"
# Clips of a step, over all processes.
_C.TRAIN.BATCH_SIZE = 64
# (new) Parts that a step's batch is computed in, one after the other, to save memory.
_C.TRAIN.ACCUMULATION_STEPS = 1
# Epochs between two evaluations on val.csv.
_C.TRAIN.EVAL_PERIOD = 10
# Epochs between two checkpoints.
_C.TRAIN.CHECKPOINT_PERIOD = 10
# Go on from the newest checkpoint in OUTPUT_DIR/checkpoints. False refuses a directory that has one.
_C.TRAIN.AUTO_RESUME = True
# Weights to start from.
_C.TRAIN.CHECKPOINT_FILE_PATH = ""
# (new) Take those weights but for the classifier, which starts anew: for other classes.
_C.TRAIN.CHECKPOINT_RESET_HEAD = False
# Kind of that file: pytorch.
_C.TRAIN.CHECKPOINT_TYPE = "pytorch"
_C.TRAIN.CHECKPOINT_INFLATE = False
# Automatic mixed precision on the GPU or on a CPU that has bf16 units.
_C.TRAIN.MIXED_PRECISION = False
# (new) bfloat16, or float16 (with a gradient scaler; GPU only).
_C.TRAIN.MIXED_PRECISION_DTYPE = "bfloat16"

_C.TEST = CfgNode()
_C.TEST.ENABLE = True
_C.TEST.DATASET = "kinetics"
# Clips of a batch, over all processes, in evaluation: a multi-view test loads as many videos as have so many views.
_C.TEST.BATCH_SIZE = 8
# (new) Name of the csv that the multi-view test reads.
_C.TEST.SPLIT = "test"
# Weights to test where TRAIN.ENABLE is False; empty takes the run's own.
_C.TEST.CHECKPOINT_FILE_PATH = ""
_C.TEST.CHECKPOINT_TYPE = "pytorch"
# Clips of a video, spread over time.
_C.TEST.NUM_ENSEMBLE_VIEWS = 10
# Crops of a clip along its long side: 1 or 3.
_C.TEST.NUM_SPATIAL_CROPS = 3
# Where the scores of every video are written; empty writes none.
_C.TEST.SAVE_RESULTS_PATH = ""
# (new) Configurations that the multi-view test runs; empty runs the largest.
_C.TEST.CONFIGURATIONS = []

_C.SOLVER = CfgNode()
_C.SOLVER.BASE_LR = 0.1
# cosine, linear (to 0 at MAX_EPOCH; new), or steps_with_relative_lrs (LRS relative to BASE_LR from the epochs STEPS on).
_C.SOLVER.LR_POLICY = "cosine"
_C.SOLVER.COSINE_END_LR = 0.0
# Start the cosine at the end of warm-up instead of at epoch 0.
_C.SOLVER.COSINE_AFTER_WARMUP = False
_C.SOLVER.STEPS = []
_C.SOLVER.LRS = []
_C.SOLVER.MAX_EPOCH = 300
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.DAMPENING = 0.0
_C.SOLVER.NESTEROV = True
_C.SOLVER.WEIGHT_DECAY = 1e-4
# No decay on parameters of one dimension.
_C.SOLVER.ZERO_WD_1D_PARAM = False
# Epochs of linear warm-up, and the rate it starts at.
_C.SOLVER.WARMUP_EPOCHS = 0.0
_C.SOLVER.WARMUP_START_LR = 0.01
_C.SOLVER.OPTIMIZING_METHOD = "sgd"
# PySlowFast's; without effect, since NUM_SHARDS is 1.
_C.SOLVER.BASE_LR_SCALE_NUM_SHARDS = False
# Clip gradients: by value, or by the L2 norm of all of them. 0 clips nothing; so does None, as in PySlowFast.
_C.SOLVER.CLIP_GRAD_VAL = 0.0
_C.SOLVER.CLIP_GRAD_L2NORM = 0.0

# ---- Data --------------------------------------------------------------------------------------------------------
_C.DATA = CfgNode()
# The directory of train.csv, val.csv and test.csv.
_C.DATA.PATH_TO_DATA_DIR = ""
# Put before every path of a csv; empty reads paths from the csv's own directory.
_C.DATA.PATH_PREFIX = ""
_C.DATA.PATH_LABEL_SEPARATOR = " "
# (new) Names of the classes, one a line or as json; empty takes classes.txt beside the csv files, if it is there.
_C.DATA.CLASS_NAMES_PATH = ""
# Frames of a clip, and the distance between two of them at TARGET_FPS.
_C.DATA.NUM_FRAMES = 8
_C.DATA.SAMPLING_RATE = 8
_C.DATA.TARGET_FPS = 30
# Pixels in, per pathway; 3 for each.
_C.DATA.INPUT_CHANNEL_NUM = [3, 3]
# Of pixels in [0, 1], per channel.
_C.DATA.MEAN = [0.45, 0.45, 0.45]
_C.DATA.STD = [0.225, 0.225, 0.225]
# Least and greatest short side that a training video is scaled to before the crop.
_C.DATA.TRAIN_JITTER_SCALES = [256, 320]
# Images: least and greatest share of the area, and aspect ratio, of a random crop that is resized; empty crops as
# TRAIN_JITTER_SCALES says.
_C.DATA.TRAIN_JITTER_SCALES_RELATIVE = []
_C.DATA.TRAIN_JITTER_ASPECT_RELATIVE = []
# (new) Images: strength of random brightness, contrast and saturation.
_C.DATA.COLOR_JITTER = 0.0
# (new) Images: pixels added on each side before the random crop, as is done with CIFAR.
_C.DATA.CROP_PADDING = 0
_C.DATA.TRAIN_JITTER_MOTION_SHIFT = False
_C.DATA.TRAIN_CROP_SIZE = 224
# Side of a test view; a smaller configuration sees the same view shrunk in proportion.
_C.DATA.TEST_CROP_SIZE = 256
# Draw 1 / scale uniformly instead of the scale.
_C.DATA.INV_UNIFORM_SAMPLE = False
_C.DATA.RANDOM_FLIP = True
# Spread test clips from the first to the last position instead of stopping one short.
_C.DATA.USE_OFFSET_SAMPLING = False
# pyav (exact) or decord; torchvision, as in PySlowFast's files, means pyav.
_C.DATA.DECODING_BACKEND = "pyav"
# How scores of views are joined: sum or max.
_C.DATA.ENSEMBLE_METHOD = "sum"
# Several labels a clip (Charades): scores are sigmoids, accuracy is mean average precision.
_C.DATA.MULTI_LABEL = False
_C.DATA.REVERSE_INPUT_CHANNEL = False

_C.DATA_LOADER = CfgNode()
# Worker processes of each process.
_C.DATA_LOADER.NUM_WORKERS = 8
_C.DATA_LOADER.PIN_MEMORY = True
# (new) Share of videos that may be unreadable before a run stops: in training, and in evaluation.
_C.DATA_LOADER.MAX_UNREADABLE_TRAIN = 0.01
_C.DATA_LOADER.MAX_UNREADABLE_TEST = 0.0

# ---- Networks ----------------------------------------------------------------------------------------------------
_C.MODEL = CfgNode()
# Network: a name of mutual3d.models.MODEL_REGISTRY.
_C.MODEL.MODEL_NAME = "SlowFast"
# Kind of a ResNet: slow.
_C.MODEL.ARCH = "slowfast"
_C.MODEL.NUM_CLASSES = 400
# cross_entropy, or for several labels bce_logit or bce; heads return logits, so that both are the same thing here.
_C.MODEL.LOSS_FUNC = "cross_entropy"
# What turns logits into scores in evaluation: softmax or sigmoid; it must go with LOSS_FUNC.
_C.MODEL.HEAD_ACT = "softmax"
_C.MODEL.DROPOUT_RATE = 0.5
_C.MODEL.DROPCONNECT_RATE = 0.0
_C.MODEL.FC_INIT_STD = 0.01
# (new) MobileNets and ImageResNet for images of about 32 pixels: without their first two halvings. A ResNet's first
# convolution is then 3x3.
_C.MODEL.SMALL_IMAGES = False

_C.X3D = CfgNode()
_C.X3D.WIDTH_FACTOR = 1.0
_C.X3D.DEPTH_FACTOR = 1.0
# Inner channels of a block over its outer ones.
_C.X3D.BOTTLENECK_FACTOR = 1.0
_C.X3D.DIM_C1 = 12
_C.X3D.DIM_C5 = 2048
_C.X3D.SCALE_RES2 = False
_C.X3D.BN_LIN5 = False
_C.X3D.CHANNELWISE_3x3x3 = True

_C.RESNET = CfgNode()
_C.RESNET.TRANS_FUNC = "bottleneck_transform"
_C.RESNET.NUM_GROUPS = 1
_C.RESNET.WIDTH_PER_GROUP = 64
_C.RESNET.STRIDE_1X1 = False
# Start every residual branch at zero.
_C.RESNET.ZERO_INIT_FINAL_BN = False
_C.RESNET.DEPTH = 50
_C.RESNET.NUM_BLOCK_TEMP_KERNEL = [[3], [4], [6], [3]]
_C.RESNET.SPATIAL_STRIDES = [[1], [2], [2], [2]]
_C.RESNET.SPATIAL_DILATIONS = [[1], [1], [1], [1]]

_C.SLOWFAST = CfgNode()
_C.SLOWFAST.BETA_INV = 8
_C.SLOWFAST.ALPHA = 8
_C.SLOWFAST.FUSION_CONV_CHANNEL_RATIO = 2
_C.SLOWFAST.FUSION_KERNEL_SZ = 5

_C.NONLOCAL = CfgNode()
# Blocks with non-local layers: none are supported.
_C.NONLOCAL.LOCATION = [[[]], [[]], [[]], [[]]]

_C.BN = CfgNode()
_C.BN.MOMENTUM = 0.1
_C.BN.EPSILON = 1e-5
# Weight decay of norms.
_C.BN.WEIGHT_DECAY = 0.0
_C.BN.NORM_TYPE = "batchnorm"

_C.WIDERESNET = CfgNode()
# (new) Layers and widening factor of a WideResNet.
_C.WIDERESNET.DEPTH = 28
_C.WIDERESNET.WIDEN_FACTOR = 10

_C.DETECTION = CfgNode()
# Classify the boxes of a clip (AVA) instead of the clip.
_C.DETECTION.ENABLE = False
_C.DETECTION.ALIGNED = True
# PySlowFast's; not read: a pathway's scale is the size of its features over that of its input.
_C.DETECTION.SPATIAL_SCALE_FACTOR = 16
# Side of the grid that a box's features are pooled to.
_C.DETECTION.ROI_XFORM_RESOLUTION = 7

# ---- AVA -----------------------------------------------------------------------------------------------------------
_C.AVA = CfgNode()
# Where the frames lie (frame lists name them relative to it), the frame lists, and the annotations.
_C.AVA.FRAME_DIR = ""
_C.AVA.FRAME_LIST_DIR = ""
_C.AVA.ANNOTATION_DIR = ""
# Frame lists in FRAME_LIST_DIR of the two splits.
_C.AVA.TRAIN_LISTS = ["train.csv"]
_C.AVA.TEST_LISTS = ["val.csv"]
# In ANNOTATION_DIR: boxes that people drew, boxes that a detector found, and boxes to score in evaluation.
_C.AVA.TRAIN_GT_BOX_LISTS = ["ava_train_v2.2.csv"]
_C.AVA.TRAIN_PREDICT_BOX_LISTS = []
_C.AVA.TEST_PREDICT_BOX_LISTS = ["ava_val_predicted_boxes.csv"]
# Detected boxes below this score are left out.
_C.AVA.DETECTION_SCORE_THRESH = 0.9
# In ANNOTATION_DIR: the evaluated classes, the timestamps that do not count, and what results are compared with.
_C.AVA.LABEL_MAP_FILE = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
_C.AVA.EXCLUSION_FILE = "ava_val_excluded_timestamps_v2.2.csv"
_C.AVA.GROUNDTRUTH_FILE = "ava_val_v2.2.csv"
# (new) Frames a second of the extracted frames, and the second that frame 0 shows.
_C.AVA.FPS = 30
_C.AVA.FIRST_SECOND = 900

_C.TENSORBOARD = CfgNode()
# Write loss, rates and accuracy for TensorBoard (`pip install -e .[tensorboard]`).
_C.TENSORBOARD.ENABLE = False
# Empty writes to OUTPUT_DIR/runs-{TRAIN.DATASET}.
_C.TENSORBOARD.LOG_DIR = ""


def get_cfg():
    """A fresh copy of the defaults."""
    return _C.clone()
