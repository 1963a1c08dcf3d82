"""Loading tables of labels."""

import pytest
from folders import relative, touch

from sktransfer.datasets import load_image_csv


@pytest.fixture
def pets(tmp_path):
    """A function that writes a table over four images and loads it."""
    touch(tmp_path, "images/0007.jpg", "images/0008.jpg", "images/1e3.jpg", "images/sub/9.png")

    def load(text, *, encoding="utf-8", **parameters):
        table = tmp_path / "labels.csv"
        table.write_bytes(text.encode(encoding))
        defaults = {"image_column": "id", "label_column": "breed", "suffix": ".jpg"}
        return load_image_csv(table, tmp_path / "images", **(defaults | parameters))

    return load


def test_a_table_keeps_its_order_and_its_text(pets, tmp_path):
    bunch = pets("id,breed\n0008,pug\n1e3,beagle\n0007,pug\n")
    assert relative(bunch, tmp_path / "images") == ["0008.jpg", "1e3.jpg", "0007.jpg"]
    assert bunch.ids.tolist() == ["0008", "1e3", "0007"]
    assert bunch.target.tolist() == ["pug", "beagle", "pug"]
    assert bunch.target_names.tolist() == ["beagle", "pug"]
    assert "- pug: 2" in bunch.DESCR


def test_numeric_labels_stay_text(pets):
    assert pets("id,breed\n0008,01\n0007,1\n").target.tolist() == ["01", "1"]


def test_file_names_may_be_complete_and_lie_deeper(pets, tmp_path):
    bunch = pets("id,breed\nsub/9.png,pug\n0007.jpg,pug\n", suffix="")
    assert relative(bunch, tmp_path / "images") == ["sub/9.png", "0007.jpg"]


def test_a_table_without_labels(pets):
    bunch = pets("id\n0008\n0007\n", label_column=None)
    assert len(bunch.data) == 2
    assert bunch.target is None
    assert bunch.target_names is None
    assert "2 images, without labels" in bunch.DESCR


def test_a_column_for_each_label(pets):
    text = "id,pug,beagle\n0008,1,0\n1e3,0.0,True\n0007,false,0\n"
    bunch = pets(text, label_column=None, label_columns=["pug", "beagle"])
    assert bunch.target.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert bunch.target_names.tolist() == ["pug", "beagle"]
    assert "3 images, 2 labels:\n\n- pug: 1\n" in bunch.DESCR
    for cell in ("2", "", "yes"):
        with pytest.raises(ValueError, match=f"has '{cell}' in the column 'pug', line 3"):
            pets(f"id,pug\n0008,1\n1e3,{cell}\n", label_column=None, label_columns=["pug"])
    with pytest.raises(ValueError, match=r"no column 'bagle'.*Did you mean 'beagle'"):
        pets(text, label_column=None, label_columns=["bagle"])
    with pytest.raises(ValueError, match="label_columns replaces label_column"):
        pets(text, label_columns=["pug"])


def test_a_column_of_several_labels(pets):
    text = "id,breed,split\n0008,pug; small,train\n1e3,,train\n0007,small;old,test\n"
    bunch = pets(text, label_separator=";", where={"split": "train"})
    assert bunch.target.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert bunch.target_names.tolist() == ["old", "pug", "small"]  # those of the whole table
    with pytest.raises(ValueError, match="label_separator=';' needs label_column"):
        pets(text, label_column=None, label_separator=";")


def test_dialects(pets):
    text = 'id;breed\r\n0008;"pug; small"\r\n\r\n0007;Weimar\u00e4ner\r\n'
    expected = ["pug; small", "Weimar\u00e4ner"]
    assert pets(text, delimiter=";", encoding="utf-8-sig").target.tolist() == expected


def test_blanks_around_cells_and_names_are_no_part_of_them(pets):
    bunch = pets(
        "id , breed,split\n0008 , pug,train \n 0007,pug\t, train\n", where={"split": "train"}
    )
    assert bunch.ids.tolist() == ["0008", "0007"]
    assert bunch.target.tolist() == ["pug", "pug"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_encodings(pets, tmp_path, encoding):
    text = "id,breed\n0008,Weimar\u00e4ner\n"
    with pytest.raises(ValueError, match=f'is not UTF-8 text.*encoding="{encoding}"'):
        pets(text, encoding=encoding)
    options = {"image_column": "id", "label_column": "breed", "suffix": ".jpg"}
    table = tmp_path / "labels.csv"
    bunch = load_image_csv(table, tmp_path / "images", encoding=encoding, **options)
    assert bunch.target.tolist() == ["Weimar\u00e4ner"]


def test_where_keeps_some_rows(pets):
    text = "id,breed,split\n0007,pug,train\n0008,pug,test\n1e3,beagle,train\n"
    assert pets(text, where={"split": "train"}).ids.tolist() == ["0007", "1e3"]
    assert pets(text, where={"split": "train", "breed": "pug"}).ids.tolist() == ["0007"]
    with pytest.raises(
        ValueError, match="'val' in the column 'split', which contains 'test', 'train'"
    ):
        pets(text, where={"split": "val"})
    with pytest.raises(TypeError, match=r"'where' parameter .* Got 'train'"):
        pets(text, where="train")
    with pytest.raises(TypeError, match=r"'test'\]}: expected one string for each column"):
        pets(text, where={"split": ["train", "test"]})


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("id,breed\n0007,pug\n", {"image_column": "file"}, r"no column 'file'.*\['id', 'breed'\]"),
        ("id,breed\n0007,pug\n", {"label_column": "breeds"}, "Did you mean 'breed'"),
        ("id,breed\n0007,pug\n", {"image_column": "ID"}, "Did you mean 'id'"),
        ("id,breed\n0007,pug\n", {"delimiter": ";"}, "delimiter=','"),
        ("id,breed\n0007,pug\n", {"where": {"split": "train"}}, "no column 'split'"),
        ("id;breed\n0007;pug\n", {}, "delimiter=';'"),
        ("id,id,breed\n0007,1,pug\n", {}, "2 columns named 'id'"),
        ("", {}, "is empty .*; expected column names"),
        ("id,breed\n", {}, "no rows"),
        ("id,breed\n0007,\n0008,pug\n", {}, "'breed', line 2.*leave out label_column"),
        ("id,breed\n0008,pug\n,pug\n", {}, "'id', line 3"),
        ("id,breed\n0007,pug, small\n", {}, "3 cells in line 2.*double quotes"),
        ("id,breed\n0007\n", {}, "1 cells in line 2"),
        ('id,breed\n0007,"pug\n', {}, "cannot|not a table that can be read"),
        ("id,breed\n7,a\n8,b\n7,c\n", {}, r"1 image\(s\) more than once.*'7' \(lines 2, 4\)"),
    ],
)
def test_tables_that_are_wrong_say_where(pets, text, parameters, message):
    with pytest.raises(ValueError, match=message):
        pets(text, **parameters)


def test_missing_images_are_named(pets):
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images.*0009\.jpg") as caught:
        pets("id,breed\n0007,pug\n0009,pug\n")
    assert "Hint: delete the rows of these images" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"Hint: none of the images exists.*image_dir"):
        pets("id,breed\n0005,pug\n0009,pug\n")
    with pytest.raises(FileNotFoundError, match=r"Hint: .*suffix='\.jpg'"):
        pets("id,breed\n0007,pug\n", suffix="")
    with pytest.raises(FileNotFoundError, match=r'Hint: .*suffix=""'):
        pets("id,breed\n0007.jpg,pug\n")


def test_a_missing_table_or_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = {"image_column": "id", "label_column": None}
    with pytest.raises(FileNotFoundError, match=r"no table .*labels\.csv\.$"):
        load_image_csv(tmp_path / "labels.csv", tmp_path, **columns)
    with pytest.raises(FileNotFoundError, match=f"relative to {tmp_path}"):
        load_image_csv("labels.csv", tmp_path, **columns)
    with pytest.raises(FileNotFoundError, match=r"image_dir: there is no folder .*images"):
        load_image_csv(tmp_path / "labels.csv", tmp_path / "images", **columns)
