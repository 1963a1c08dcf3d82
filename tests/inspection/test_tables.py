"""Tables of predictions, of mistakes and of confused classes, and files for contests."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier

from sktransfer import ImageEmbedder, make_transfer_pipeline
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import ImageReadError
from sktransfer.inspection import (
    confused_pairs,
    error_table,
    prediction_table,
    submission_table,
)

pd = pytest.importorskip("pandas")


class Known:
    """A classifier with given probabilities."""

    classes_ = np.array(["cat", "cow", "dog"])

    def predict_proba(self, X):
        return np.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4]])[: len(X)]


PATHS = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]


def test_predictions_come_with_the_most_probable_first():
    table = prediction_table(Known(), PATHS, top_k=2)
    assert table.index.tolist() == [0, 1, 2] and table["path"].tolist() == PATHS
    assert table["predicted"].tolist() == ["dog", "cat", "dog"]
    assert table["predicted_2"].tolist() == ["cow", "cow", "cat"]
    assert table["probability_2"].tolist() == [0.2, 0.4, 0.3]


def test_names_that_are_no_text_are_escaped(tmp_path):
    X = [tmp_path / "x\udce9\n\x1b[1m.png", tmp_path / "b.png", tmp_path / "ü\u200d.png"]
    paths = [f"{tmp_path}/x\\udce9\\n\\x1b[1m.png", str(X[1]), str(X[2])]
    assert prediction_table(Known(), X)["path"].tolist() == paths
    assert error_table(Known(), X, ["cow"] * 3).sort_index()["path"].tolist() == paths
    assert submission_table(Known(), X)["id"][0] == r"x\udce9\n\x1b[1m"
    with pytest.raises(ImageReadError, match=r"x\\udce9\\n\\x1b\[1m.png: no such file"):
        ImageEmbedder(cache=None).fit_transform(X)


def test_there_are_no_more_columns_than_classes():
    assert list(prediction_table(Known(), PATHS, top_k=9))[-1] == "probability_3"


@pytest.mark.parametrize("tabulate", [prediction_table, submission_table])
def test_several_labels_of_a_stack_point_to_a_single_head(tabulate):
    labels = np.array([[0, 1], [1, 0]] * 4)
    images = [f"{number}.jpg" for number in range(len(labels))]
    stack = StackingClassifier([("a", DummyClassifier())], DummyClassifier(), cv=2)
    with pytest.raises(ValueError, match=r"but StackingClassifier .*make_union\(ImageEmbedder"):
        tabulate(stack.fit(images, labels), images)


def test_errors_come_with_the_worst_first():
    table = error_table(Known(), PATHS, ["cat", "cat", "cow"])
    assert table.index.tolist() == [0, 2]
    assert table["true"].tolist() == ["cat", "cow"]
    assert table["predicted"].tolist() == ["dog", "dog"]
    assert table["probability"].tolist() == [0.7, 0.4]
    np.testing.assert_allclose(table["loss"], -np.log([0.1, 0.3]))


def test_all_images_can_be_tabulated():
    table = error_table(Known(), PATHS, ["cat", "cat", "cow"], errors_only=False)
    assert table.index.tolist() == [0, 2, 1]


def test_an_unknown_class_has_the_largest_loss():
    table = error_table(Known(), PATHS, ["cat", "horse", "dog"])
    assert table.index.tolist() == [1, 0]
    assert np.isfinite(table["loss"]).all() and table["loss"].iloc[0] > 30


def test_labels_and_images_must_match():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        error_table(Known(), PATHS, ["cat"])


def test_a_submission_has_ids_and_one_column_for_each_class(tmp_path):
    table = submission_table(Known(), PATHS, id_column="image")
    assert list(table) == ["image", "cat", "cow", "dog"]
    assert table["image"].tolist() == ["1", "2", "3"]
    table.to_csv(tmp_path / "submission.csv", index=False)
    first = (tmp_path / "submission.csv").read_text().splitlines()[1]
    assert first == "1,0.1,0.2,0.7"


def test_images_in_memory_need_ids():
    images = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"X\[0\] is an image in memory.*pass ids="):
        submission_table(Known(), images)
    assert submission_table(Known(), images, ids=[7, 8])["id"].tolist() == [7, 8]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        submission_table(Known(), images, ids=[7])


@pytest.mark.parametrize(("paths", "ids"), [(PATHS, [9, 1, 1]), (["a/1.jpg", "b/1.png"], None)])
def test_ids_differ(paths, ids):
    with pytest.raises(ValueError, match="The id 1 occurs more than once in the column 'id'"):
        submission_table(Known(), paths, ids=ids)


def test_confused_pairs_leave_out_what_is_right():
    y_true = ["a", "a", "a", "b", "b", "c"]
    table = confused_pairs(y_true, ["b", "b", "a", "b", "c", "c"])
    assert table[["true", "predicted"]].to_numpy().tolist() == [["a", "b"], ["b", "c"]]
    assert table["count"].tolist() == [2, 1]
    np.testing.assert_allclose(table["fraction"], [2 / 3, 1 / 2])
    assert confused_pairs(y_true, y_true).empty


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_confused_pairs_refuse_missing_classes(missing):
    with pytest.raises(ValueError, match="must not be missing"):
        confused_pairs(["cat", "dog"], ["cat", missing])


def test_tables_of_a_pipeline():
    shapes = make_shapes(40, random_state=0)
    model = make_transfer_pipeline(head=DummyClassifier(), image_size=32, cache=None)
    model.fit(shapes.data, shapes.target)
    assert prediction_table(model, shapes.data)["path"].isna().all()
    assert len(error_table(model, shapes.data, shapes.target)) == 30


@pytest.mark.parametrize("table", [prediction_table, submission_table])
def test_a_table_needs_probabilities(table):
    with pytest.raises(TypeError, match="predict_proba"):
        table("model", PATHS)
