"""Lists that leave out one group of videos at a time."""

from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.leave_one_out import group_of


def write_set(folder, names, is_there=lambda name: True):
    """train.csv and val.csv of videos `person_action`, which nobody decodes here."""
    rows = [f"{name}.avi {name.rpartition('_')[2]}" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    for name in filter(is_there, names):
        (folder / f"{name}.avi").touch()
    (folder / "train.csv").write_text("\n".join(rows[:3]) + "\n")
    (folder / "val.csv").write_text("\n".join(rows[3:]) + "\n")
    (folder / "classes.txt").write_text("bend\njack\n")


def test_each_person_is_left_out_once(lists_tool, tmp_path, capsys):
    names = ["eli_bend", "daria_bend", "ira_jack", "daria_jack", "eli_jack", "noa_jack"]
    write_set(tmp_path / "set", names, lambda name: name not in ("daria_jack", "noa_jack"))
    assert lists_tool.main(["leave-one-out", "--lists", f"{tmp_path}/set", "--output", f"{tmp_path}/folds"]) == 0
    seen = []
    for number, person in enumerate(("daria", "eli", "ira"), start=1):
        fold = tmp_path / "folds" / f"fold_{number}"
        train, val = ([(group_of(path), label) for path, label in read_video_list(fold / f"{split}.csv")] for split in ("train", "val"))
        assert {name for name, _ in val} == {person} and person not in {name for name, _ in train}
        assert read_class_names(fold / "classes.txt") == ["bend", "jack"]
        seen += val
    assert sorted(seen) == [("daria", 0), ("eli", 0), ("eli", 1), ("ira", 1)]
    assert "fold_1/val.csv: 1 videos, 1 more are not there" in capsys.readouterr().out
    assert (tmp_path / "folds" / "fold_1" / "val_missing.txt").read_text() == f"{tmp_path}/set/daria_jack.avi\n"
    assert not (tmp_path / "folds" / "fold_4").exists()


def test_a_set_of_one_person_or_without_lists_is_refused(lists_tool, tmp_path, capsys):
    write_set(tmp_path / "one", ["eli_1_bend", "eli_1_jack", "eli_2_bend", "eli_2_jack"])
    assert lists_tool.main(["leave-one-out", "--lists", f"{tmp_path}/one", "--output", f"{tmp_path}/folds"]) == 1
    assert "are of 1 group, eli: a group is what stands before the first _ of a name" in capsys.readouterr().err
    assert lists_tool.main(["leave-one-out", "--lists", f"{tmp_path}", "--output", f"{tmp_path}/folds"]) == 1
    assert f"there is neither a train.csv nor a val.csv in '{tmp_path}'" in capsys.readouterr().err
    assert not (tmp_path / "folds").exists()
