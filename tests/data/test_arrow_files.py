"""Text in Arrow files: streams and files, folders of the datasets library, and every refusal."""

import numpy as np
import pyarrow as pa
import pytest

from electra_jax.data.documents import DocumentOptions, Documents
from electra_jax.errors import UsageError

TEXTS = [f"text {n}, caf\u00e9" for n in range(1000)]


def write(path, columns, new=pa.ipc.new_stream, rows=300):
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
def test_streams_and_files_of_all_kinds_of_text(tmp_path, new, kind):
    values = [None, *TEXTS] if kind != pa.binary() else [None, *(t.encode() for t in TEXTS)]
    path = write(tmp_path / "a.arrow", {"n": range(1001), "text": pa.array(values, kind)}, new)
    documents = Documents([f"arrow:{path}"])
    assert list(documents) == TEXTS
    assert documents.dropped["empty"] == 1


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_the_share_that_is_read_grows_with_the_batches(tmp_path, new):
    path = write(tmp_path / "a.arrow", {"text": TEXTS}, new, rows=100)
    documents = Documents([f"arrow:{path}"])
    fractions = [documents.fraction for _ in documents]
    assert np.all(np.diff(fractions) >= 0) and len(set(fractions)) >= 10
    assert 0 < fractions[0] < 0.3 and fractions[-1] > 0.9


def test_a_folder_of_save_to_disk_is_read_in_the_order_of_its_shards(tmp_path):
    folder = tmp_path / "saved[1]"
    folder.mkdir()
    for name in ("dataset_info.json", "state.json"):
        (folder / name).write_text("{}")
    for shard in (1, 0):
        texts = TEXTS[500 * shard : 500 * (shard + 1)]
        write(folder / f"data-0000{shard}-of-00002.arrow", {"text": texts})
    assert list(Documents([f"arrow:{folder}"])) == TEXTS


@pytest.mark.full
def test_what_the_datasets_library_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved", num_shards=3)
    assert list(Documents([f"arrow:{tmp_path}/saved"])) == TEXTS


REFUSED = {
    "empty": (b"", "not a readable Arrow file"),
    "text": (b"no arrow\n" * 9, "not a readable Arrow file"),
    "no column": ({"content": ["a"]}, "no column 'text'; there are: content"),
    "numbers": ({"text": [1, 2]}, "column 'text' is not text but int64"),
    "bytes": ({"text": [b"a", b"\xff"]}, "row 2: not valid UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path, case):
    content, message = REFUSED[case]
    path = tmp_path / "a.arrow"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(UsageError, match=message):
        list(Documents([f"arrow:{path}"]))


def test_a_cut_stream_is_refused(tmp_path):
    path = write(tmp_path / "a.arrow", {"text": TEXTS})
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UsageError, match="a.arrow: corrupt after row 600"):
        list(Documents([f"arrow:{path}"]))


def test_another_column(tmp_path):
    path = write(tmp_path / "a.arrow", {"content": TEXTS})
    assert list(Documents([f"arrow:{path}"], DocumentOptions(column="content"))) == TEXTS
