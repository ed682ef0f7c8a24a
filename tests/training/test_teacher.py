"""TRAIN.TEACHER_LOGITS: what a step learns from another network's stored logits, and the file that they come in."""

import itertools
import os
import re

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tiny import SPACE, tiny_network
from torch.nn.parallel import DistributedDataParallel

from mutual3d.data.datasets.images import ImageArray
from mutual3d.pipeline import load_config
from mutual3d.sampling import fit_clip, normalize_clip
from mutual3d.training import (
    LOSS_FUNCTIONS,
    OBJECTIVES,
    Method,
    MutualStep,
    StoredTeaching,
    Trainer,
    TrainingCourse,
    build_optimizer,
    load_teacher,
    save_logits,
)
from mutual3d.training.objectives import EnsembleDistillation, InplaceDistillation, Labels, check_stored_teaching
from mutual3d.training.step import Networks
from mutual3d.utils.files import load_tensors, save_tensors

from test_distributed import run_two  # isort: skip
from test_step import MEAN, STD, batch, freeze_norms, gradients, make_step, network  # isort: skip

TEACHING = StoredTeaching(weight=0.7, temperature=2.5)


def stored_logits(num_clips=4, classes=2):
    return 3 * torch.randn(num_clips, classes, generator=torch.Generator().manual_seed(5))


# ---- The loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_its_gradient_is_that_of_cross_entropy_with_the_teachers_probabilities(temperature):
    logits, stored = stored_logits(6, 5).flip(0).requires_grad_(), stored_logits(6, 5)
    loss = StoredTeaching(0.5, temperature).loss(LOSS_FUNCTIONS["cross_entropy"], logits, stored, None)
    (by_kl,) = torch.autograd.grad(loss, logits)
    soft = F.cross_entropy(logits / temperature, (stored / temperature).softmax(1))
    (by_targets,) = torch.autograd.grad(0.5 * temperature**2 * soft, logits)
    assert torch.allclose(by_kl, by_targets, atol=1e-7) and by_kl.abs().max() > 0.01


def test_several_labels_are_taught_by_the_teachers_sigmoids():
    logits, stored = stored_logits(6, 5).flip(0).requires_grad_(), stored_logits(6, 5)
    (gradient,) = torch.autograd.grad(StoredTeaching(2.0, 4.0).loss(LOSS_FUNCTIONS["bce_logit"], logits, stored, None), logits)
    assert torch.allclose(gradient, 2.0 * 4.0 * ((logits / 4).sigmoid() - (stored / 4).sigmoid()).detach() / 30, atol=1e-7)


@pytest.mark.parametrize("loss_function", ["cross_entropy", "bce_logit"])
def test_a_sample_without_stored_logits_is_taught_nothing_and_the_others_as_ever(loss_function):
    logits, stored = stored_logits(6, 5).flip(0).requires_grad_(), stored_logits(6, 5)
    (whole,) = torch.autograd.grad(TEACHING.loss(LOSS_FUNCTIONS[loss_function], logits, stored, None), logits)
    stored[2] = torch.nan
    (without,) = torch.autograd.grad(TEACHING.loss(LOSS_FUNCTIONS[loss_function], logits, stored, None), logits)
    others = torch.arange(6) != 2
    assert without[2].abs().max() < 1e-7 < whole[2].abs().max() and torch.allclose(without[others], whole[others], atol=1e-8)


# ---- A step ------------------------------------------------------------------------------------------------------------


def by_hand(loss_function, logits, labels, stored):
    """Labels and stored logits, written out."""
    t = TEACHING.temperature
    if loss_function == "cross_entropy":
        p = (stored / t).softmax(1)
        return F.cross_entropy(logits, labels) + TEACHING.weight * t * t * (p * (p.log() - (logits / t).log_softmax(1))).sum(1).mean()
    taught = F.binary_cross_entropy_with_logits(logits / t, (stored / t).sigmoid())
    return F.binary_cross_entropy_with_logits(logits, labels) + TEACHING.weight * t * t * taught


@pytest.mark.parametrize("loss_function", ["cross_entropy", "bce_logit"])
@pytest.mark.parametrize("subnets, objective", [(["smallest", "random"], "inplace_distillation"), (["smallest"], "labels"), ([], "labels")])
def test_a_step_equals_its_computation_by_hand(subnets, objective, loss_function):
    model, (clips, labels), stored = network(), batch(), stored_logits()
    labels = labels if loss_function == "cross_entropy" else F.one_hot(labels, 2).float()
    step = make_step(model, subnets=subnets, objective=objective, loss_function=loss_function, stored=TEACHING)
    result = step(clips, labels, step=3, stored_BK=stored)
    together = gradients(model)
    model.zero_grad()
    clip, losses, first = normalize_clip(clips, MEAN, STD), [], None
    for configuration in result.configurations:
        logits = model.activate(configuration)([fit_clip(clip, configuration, SPACE)])
        if first is None or objective == "labels":
            losses.append(by_hand(loss_function, logits, labels, stored))
        else:
            losses.append(LOSS_FUNCTIONS[loss_function].distillation(logits, first, labels))
        first = logits.detach() if first is None else first
    sum(losses).backward()
    assert result.losses == pytest.approx([loss.item() for loss in losses], rel=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(together[name], parameter.grad, atol=2e-6), name
    parts = result.loss_parts
    assert parts.keys() == {"label_loss", "teacher_loss"} and sum(parts.values()) == pytest.approx(result.losses[0], rel=1e-5)
    assert parts["label_loss"] == pytest.approx(LOSS_FUNCTIONS[loss_function].labels(result.logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("objective", [name for name, choice in OBJECTIVES.items() if choice.is_joint])
def test_every_size_of_an_ensemble_learns_from_them_and_its_shares_do_not(objective):
    results = []
    for stored in (None, stored_logits()):
        model, (clips, labels) = network(), batch()
        step = make_step(model, subnets=["each_size"], objective=objective, largest=False, stored=None if stored is None else TEACHING)
        results.append((step(clips, labels, step=0, stored_BK=stored), step.objective.alpha.grad.clone(), model))
    (plain, alpha, _), (taught, same_alpha, model) = results
    assert torch.equal(alpha, same_alpha) and len(taught.losses) == len(taught.configurations) + 1
    clip = normalize_clip(batch()[0], MEAN, STD)
    for i, configuration in enumerate(taught.configurations):
        logits = model.activate(configuration)([fit_clip(clip, configuration, SPACE)])
        added = TEACHING.loss(LOSS_FUNCTIONS["cross_entropy"], logits, stored_logits(), None)
        assert taught.losses[i] == pytest.approx(plain.losses[i] + added.item(), rel=1e-4)
    assert taught.losses[-1] == plain.losses[-1]


def test_parts_of_a_batch_keep_their_own_rows():
    """Norms apart, since their statistics are a part's."""
    found = []
    for parts in (1, 2):
        model = freeze_norms(network())
        make_step(model, accumulation_steps=parts, stored=TEACHING)(*batch(), step=1, stored_BK=stored_logits())
        found.append(gradients(model))
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name


def _taught_process(rank, port, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, (clips, labels), half = freeze_norms(network()), batch(8), slice(4 * rank, 4 * rank + 4)
    parallel = DistributedDataParallel(Networks(model), broadcast_buffers=False)
    make_step(model, network=parallel, stored=TEACHING)(clips[half], labels[half], step=0, stored_BK=stored_logits(8)[half])
    torch.save(gradients(model), f"{path}/{rank}.pth")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(tmp_path):
    run_two(_taught_process, tmp_path)
    model = freeze_norms(network())
    make_step(model, stored=TEACHING)(*batch(8), step=0, stored_BK=stored_logits(8))
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, torch.load(tmp_path / "0.pth")[name], atol=1e-6), name
        assert torch.equal(torch.load(tmp_path / "0.pth")[name], torch.load(tmp_path / "1.pth")[name]), name


def test_the_loop_looks_logits_up_by_the_samples_position_once_for_each_of_its_clips(monkeypatch):
    class Loader:
        num_samples = 4

        def __len__(self):
            return 1

        def batches(self, epoch=0, start=0):
            clips, labels = batch(4)
            content = dict(clips_BVCTHW=clips.unflatten(0, (2, 2)), labels=labels[:2], bad=[], boxes=None, indices=torch.tensor([3, 1]))
            yield type("Batch", (), content)

    class Teacher:
        def logits(self, indices):
            return torch.stack([indices.float(), torch.zeros(len(indices))], 1)

    torch.manual_seed(0)
    model, given, call = tiny_network(), [], MutualStep.__call__
    monkeypatch.setattr(MutualStep, "__call__", lambda step, *arguments: given.append(arguments[-1]) or call(step, *arguments))
    optimizer = build_optimizer(model, base_lr=0.1, weight_decay=0.0)
    step, device = make_step(model, stored=TEACHING), torch.device("cpu")
    Trainer(step, optimizer, Loader(), lambda epoch: 0.1, TrainingCourse(1), device=device, teacher=Teacher()).train()
    assert given[0].tolist() == [[3, 0], [3, 0], [1, 0], [1, 0]]


# ---- What may learn from them ------------------------------------------------------------------------------------------


def test_each_objective_says_who_learns_from_them():
    assert (InplaceDistillation.stored_teaches, Labels.stored_teaches, EnsembleDistillation.stored_teaches) == ("first", "each", "each")

    class Untaught(Labels):
        stored_teaches = "none"

    OBJECTIVES["untaught"] = Untaught
    try:
        with pytest.raises(ValueError, match="MUTUAL.OBJECTIVE untaught learns from no stored logits: leave it empty, or set inplace_distillation or"):
            check_stored_teaching(Method(("smallest",), "untaught", stored=TEACHING))
        check_stored_teaching(Method(("smallest",), "untaught"))
    finally:
        del OBJECTIVES["untaught"]


@pytest.mark.parametrize("loss_function", LOSS_FUNCTIONS)
def test_losses_of_other_tasks_refuse_them(loss_function):
    classifies = loss_function in ("cross_entropy", "soft_cross_entropy", "bce_logit", "bce")
    assert LOSS_FUNCTIONS[loss_function].takes_stored_logits == classifies
    if not classifies:
        with pytest.raises(ValueError, match=f"MODEL.LOSS_FUNC is {loss_function}: stored logits are a row of scores.*cross_entropy.*leave it empty"):
            Method(loss_function=loss_function, stored=TEACHING).make_objective(1)


@pytest.mark.parametrize(
    "config, words, sentence",
    [
        ("Demo/MUTUAL_X3D", ["MIXUP.ENABLE", "True"], "say nothing of two that MIXUP.ENABLE True mixes; set it False, or MIXUP.PROB 0"),
        ("AVA/MUTUAL_SLOWFAST_4x16_R50", [], "DETECTION.ENABLE True classifies boxes"),
        ("NYUDv2/MUTUAL_REFINENET_50", [], "MODEL.LOSS_FUNC is"),
    ],
)
def test_what_stored_logits_say_nothing_of_is_refused(config, words, sentence):
    load_config(config, words)
    with pytest.raises(ValueError, match=sentence):
        load_config(config, [*words, "TRAIN.TEACHER_LOGITS", "teacher.pyth"])


def test_smoothed_labels_go_with_them():
    words = ["TRAIN.TEACHER_LOGITS", "teacher.pyth", "MIXUP.ENABLE", "True", "MIXUP.PROB", "0.0"]
    assert load_config("Demo/MUTUAL_X3D", words).MIXUP.PROB == 0


# ---- The file ----------------------------------------------------------------------------------------------------------

TITLES = ["/data/a.mp4", "/data/b.mp4, 1 to 2.5 s", "image 7", "data/c.mp4"]


def write(path, **changes):
    save_tensors(path, {"paths": list(TITLES), "logits": stored_logits(4, 3), **changes})
    return path


def test_rows_are_found_by_path_and_never_by_their_order(tmp_path):
    file, logits = tmp_path / "t.pyth", stored_logits(4, 3)
    save_logits(file, TITLES, logits, ["a", "b", "c"])
    content = load_tensors(file)
    assert content["paths"] == [*TITLES[:3], os.path.abspath("data/c.mp4")] and content["classes"] == ["a", "b", "c"]
    for order in itertools.permutations(range(4)):
        teacher = load_teacher(file, [TITLES[i] for i in order], 3)
        assert teacher.classes == ["a", "b", "c"]
        assert torch.equal(teacher.logits(torch.tensor([2, 0])), logits[[order[2], order[0]]])
    # A list of some of them, one twice, and paths that are written otherwise.
    teacher = load_teacher(file, ["/data/x/../a.mp4", os.path.abspath("data/c.mp4"), "/data/a.mp4"], 3)
    assert torch.equal(teacher.logits(torch.tensor([0, 1, 2])), logits[[0, 3, 0]])


def test_half_precision_is_kept_as_it_is_and_given_in_full(tmp_path):
    half = stored_logits(4, 3).half()
    teacher = load_teacher(write(tmp_path / "t.pt", logits=half), TITLES, 3)
    assert torch.equal(teacher.logits(torch.arange(4)), half.float()) and teacher.logits(torch.arange(2)).dtype == torch.float32


def test_logits_that_were_kept_with_gradients_teach_as_others(tmp_path):
    torch.save({"paths": TITLES, "logits": (2 * stored_logits(4, 3).requires_grad_())}, tmp_path / "t.pyth")
    assert load_tensors(tmp_path / "t.pyth")["logits"].requires_grad
    taught = load_teacher(tmp_path / "t.pyth", TITLES, 3).logits(torch.arange(4))
    assert not taught.requires_grad and torch.equal(taught, 2 * stored_logits(4, 3))


def test_what_an_image_without_a_file_is_called_tells_it_from_the_one_that_is_there_in_another_order():
    images = np.random.default_rng(0).integers(256, size=(3, 4, 4, 3), dtype=np.uint8)
    names, turned = ([ImageArray(own, range(3), "abc").name_of(i) for i in range(3)] for own in (images, images[::-1]))
    assert names[0].startswith("image 0 (") and names[1] == turned[1] and not {names[0], names[2]} & {*turned}


def test_a_list_that_names_a_video_twice_is_written_with_one_row(tmp_path):
    assert save_logits(tmp_path / "t.pyth", ["/a.mp4", "/b.mp4", "/a.mp4"], stored_logits(3)) == 2
    assert torch.equal(load_tensors(tmp_path / "t.pyth")["logits"], stored_logits(3)[:2])


def test_its_fingerprint_is_of_the_rows_of_the_list(tmp_path):
    file = write(tmp_path / "t.pyth")
    known = load_teacher(file, TITLES, 3).fingerprint()
    logits = stored_logits(4, 3)
    moved = write(tmp_path / "moved.pyth", paths=TITLES[::-1], logits=logits.flip(0))
    assert load_teacher(moved, TITLES, 3).fingerprint() == known
    logits[1, 1] += 1e-6
    assert load_teacher(write(file, logits=logits), TITLES, 3).fingerprint() != known
    assert load_teacher(moved, TITLES[:3], 3).fingerprint() != known


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"paths": TITLES[:3]}, "has 3 paths and 4 rows of logits"),
        ({"paths": [*TITLES[:3], TITLES[0]]}, "has 1 rows too many, such as a second one of '/data/a.mp4'"),
        ({"paths": [*TITLES[:3], "/data/./a.mp4"]}, "a second one of '/data/a.mp4'"),
        ({"paths": 4}, "its 'paths' are no list of texts"),
        ({"paths": [1, 2, 3, 4]}, "its 'paths' are no list of texts"),
        ({"logits": stored_logits(4, 5)}, "has logits of 5 classes, and MODEL.NUM_CLASSES is 3"),
        ({"logits": stored_logits(4, 3).flatten()}, r"its 'logits' are a torch.float32 tensor of shape \(12,\), torch.strided, and must be a dense float tensor"),
        ({"logits": stored_logits(4, 3).to_sparse()}, r"tensor of shape \(4, 3\), torch.sparse_coo, and must be a dense float tensor"),
        ({"logits": torch.full((4, 3), 1e39, dtype=torch.float64)}, "4 of 4 rows hold NaN or infinity"),
        ({"logits": torch.ones(4, 3, dtype=torch.int64)}, "its 'logits' are a torch.int64 tensor"),
        ({"logits": [[1.0] * 3] * 4}, "its 'logits' are a list"),
        ({"logits": torch.tensor([[0.0] * 3] * 3 + [[0.0, float("nan"), 0.0]])}, "1 of 4 rows hold NaN or infinity, such as that of 'data/c.mp4'"),
        ({"logits": torch.full((4, 3), float("inf"))}, "4 of 4 rows hold NaN or infinity"),
        ({"paths": ["/other/1.mp4", *TITLES[1:]]}, r"has no row of 1 of the 4 samples of the training list, such as '/data/a.mp4' \(its first row is of '/other/1.mp4'\).*MAX_UNREADABLE_TRAIN \(now 0\)"),
        ({"paths": [f"/other/{i}.mp4" for i in range(4)]}, "has no row of 4 of the 4 samples"),
        ({"paths": [], "logits": torch.empty(0, 3)}, r"has no row of 4 of the 4 samples.*it has no rows"),
        ({"classes": ["a", "b"]}, "its 'classes' are no list of 3 names"),
        ({"classes": "abc"}, "its 'classes' are no list of 3 names"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_words(changes, sentence, tmp_path):
    file = write(tmp_path / "t.pyth", **changes)
    with pytest.raises(ValueError, match=f"TRAIN.TEACHER_LOGITS '{re.escape(str(file))}'.*{sentence}"):
        load_teacher(file, TITLES, 3)


def test_what_is_no_such_file_is_refused_with_what_writes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="TRAIN.TEACHER_LOGITS is '.*none.pyth', and there is no such file: `mutual3d logits` writes"):
        load_teacher(tmp_path / "none.pyth", TITLES, 3)
    (tmp_path / "text.pyth").write_text("hello")
    torch.save({"paths": TITLES, "logits": stored_logits(4, 3), "run": os.system}, tmp_path / "code.pyth")
    save_tensors(tmp_path / "scores.pyth", {"1-24-4": {0: torch.zeros(3)}})
    for name in ("text", "code", "scores"):
        with pytest.raises(ValueError, match=f"TRAIN.TEACHER_LOGITS.*{name}.pyth.*torch.save"):
            load_teacher(tmp_path / f"{name}.pyth", TITLES, 3)


def test_a_tolerated_share_may_have_no_row_but_not_all(tmp_path, caplog):
    file = write(tmp_path / "t.pyth")
    titles = [*TITLES, "/data/broken.mp4"]
    with pytest.raises(ValueError, match="no row of 1 of the 5"):
        load_teacher(file, titles, 3, max_missing=0.1)
    teacher = load_teacher(file, titles, 3, max_missing=0.2)
    assert teacher.logits(torch.tensor([4])).isnan().all() and torch.equal(teacher.logits(torch.arange(4)), stored_logits(4, 3))
    assert "no row of 1 of the 5 samples of the training list, such as '/data/broken.mp4': these learn from their labels alone" in caplog.text
    with pytest.raises(ValueError, match="no row of 1 of the 1"):
        load_teacher(file, ["/data/broken.mp4"], 3, max_missing=1.0)
