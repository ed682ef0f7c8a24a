"""Settings that PySlowFast's Slow, SlowFast and X3D files carry and that this project does not have.

One that changes nothing here, or stands at what it does anyway, is skipped; one that asks for another result or an output
is refused, with what to use instead.
"""

from .legal import Empty, Legal, Only

# Whatever their value: they are of networks and tasks that are not here, of speed, or of what another setting switches on.
# The name of a group stands for everything under it.
WITHOUT_EFFECT = (
    "AUG.COLOR_JITTER", "AUG.GEN_MASK_LOADER", "AUG.INTERPOLATION", "AUG.MASK_FRAMES", "AUG.MASK_RATIO", "AUG.MASK_TUBE", "AUG.MASK_WINDOW_SIZE",
    "AUG.MAX_MASK_PATCHES_PER_BLOCK", "AUG.RE_SPLIT", "AVA.FULL_TEST_ON_VAL", "AVA.IMG_PROC_BACKEND", "AVA.TRAIN_PCA_EIGVAL", "AVA.TRAIN_PCA_EIGVEC",
    "AVA.TRAIN_PCA_JITTER_ONLY", "BENCHMARK", "CONTRASTIVE", "DATA.PATH_TO_PRELOAD_IMDB", "DATA.TRAIN_PCA_EIGVAL", "DATA.TRAIN_PCA_EIGVEC",
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE", "DEMO", "LOG_MODEL_INFO", "MASK", "MODEL.MULTI_PATHWAY_ARCH",
    "MODEL.SINGLE_PATHWAY_ARCH", "MULTIGRID", "MVIT", "NONLOCAL.GROUP", "NONLOCAL.INSTANTIATION", "NONLOCAL.POOL",
    "RESNET.INPLACE_RELU", "SOLVER.GAMMA", "SOLVER.STEP_SIZE", "SOLVER.WARMUP_FACTOR", "SSL", "TENSORBOARD.CATEGORIES_PATH",
    "TENSORBOARD.CLASS_NAMES_PATH", "TENSORBOARD.CONFUSION_MATRIX", "TENSORBOARD.HISTOGRAM", "TENSORBOARD.MODEL_VIS",
    "TENSORBOARD.PREDICTIONS_PATH", "TENSORBOARD.WRONG_PRED_VIS", "TRAIN.CHECKPOINT_EPOCH_RESET", "VIS_MASK",
)  # fmt: skip

_NO_SUCH_PICTURES = "the report is report.html, and per_class_ap.json or TEST.SAVE_RESULTS_PATH has what an image would show"
_PREDICT = "use `mutual3d predict`, with --output"
_SIZES = "multigrid training, whose batches change in clips, frames and pixels by a cycle, is missing (MUTUAL.ENABLE True trains several sizes at once)"

# The values at which these change nothing. A group that is given a bare value, as in `DEMO True`, is its switch.
MUST_BE_OFF: dict[str, Legal] = {
    "AVA.BGR": Only(False, instead="DATA.REVERSE_INPUT_CHANNEL True gives the network BGR"),
    "AVA.TEST_FORCE_FLIP": Only(False),
    "AVA.TRAIN_USE_COLOR_AUGMENTATION": Only(False),
    "DEMO": Only(False, instead=_PREDICT),
    "DEMO.ENABLE": Only(False, instead=_PREDICT),
    "MASK.ENABLE": Only(False),
    "MULTIGRID": Only(False, instead=_SIZES),
    "MULTIGRID.LONG_CYCLE": Only(False, instead=_SIZES),
    "MULTIGRID.SHORT_CYCLE": Only(False, instead=_SIZES),
    "SHARD_ID": Only(0, instead="torchrun says how many machines run, and which one this is"),
    "TENSORBOARD.CONFUSION_MATRIX": Only(False, instead=_NO_SUCH_PICTURES),
    "TENSORBOARD.CONFUSION_MATRIX.ENABLE": Only(False, instead=_NO_SUCH_PICTURES),
    "TENSORBOARD.HISTOGRAM": Only(False, instead=_NO_SUCH_PICTURES),
    "TENSORBOARD.HISTOGRAM.ENABLE": Only(False, instead=_NO_SUCH_PICTURES),
    "TENSORBOARD.MODEL_VIS": Only(False, instead=_NO_SUCH_PICTURES),
    "TENSORBOARD.MODEL_VIS.ENABLE": Only(False, instead=_NO_SUCH_PICTURES),
    "TENSORBOARD.WRONG_PRED_VIS": Only(False, instead=_NO_SUCH_PICTURES),
    "TENSORBOARD.WRONG_PRED_VIS.ENABLE": Only(False, instead=_NO_SUCH_PICTURES),
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": Empty("`mutual3d convert` makes a checkpoint of another project's file"),
    "VIS_MASK": Only(False, instead=_NO_SUCH_PICTURES),
    "VIS_MASK.ENABLE": Only(False, instead=_NO_SUCH_PICTURES),
}  # fmt: skip


def is_foreign(key: str) -> bool:
    """Whether a full key is one of PySlowFast's that this project does not have."""
    return key in MUST_BE_OFF or any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)


def refusal(key: str, value: object) -> str:
    """Why a foreign key cannot have a value, to be read after `KEY is VALUE: `; empty where it changes nothing."""
    legal = MUST_BE_OFF.get(key)
    return "" if legal is None or legal.accepts(value) else legal.explain(value)
