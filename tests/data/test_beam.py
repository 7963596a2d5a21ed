"""Stores prepared on Beam: the same bytes as one process writes, and the same errors.

`make test-all` runs them in an environment of their own, since Apache Beam needs older
versions of some packages than the others are tested with.
"""

import gzip
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra_jax import cli
from electra_jax.command_line import build_parser
from electra_jax.data import chunks
from electra_jax.data.documents import DocumentOptions, Documents
from electra_jax.data.token_store import TokenStore, prepare
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.errors import UsageError

TEXTS = [f"Document {n}: Grüße, 猫 und {'cats and dogs ' * (n % 7)}." for n in range(120)]


@pytest.fixture
def beam(monkeypatch):
    pytest.importorskip("apache_beam", reason="apache-beam is not installed: see `make test-all`")
    from electra_jax.data import beam

    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 300)  # several chunks a file
    return beam


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, kind="wordpiece", vocab_size=200)


@pytest.fixture
def sources(tmp_path):
    """Files of every kind, an empty one among them; some documents are in several of them."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt.gz").write_bytes(gzip.compress("\n\n".join(TEXTS[:40]).encode()))
    (folder / "b.txt").write_text("")
    (folder / "c.txt").write_text("\n\n".join(["x", *TEXTS[30:60], *TEXTS[50:60]]))
    rows = [None, "\ud83d", " " + TEXTS[5] + "\n", "long " * 1000, *TEXTS[60:90]]
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    pq.write_table(pa.table({"text": TEXTS[80:] + [None, "y"]}), folder / "e.parquet")
    # Not in the order of the names.
    return [f"parquet:{folder}/*.parquet", f"text:{folder}/*.txt*", f"jsonl:{folder}/d.jsonl"]


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def locally(sources, tokenizer, output, **options):
    documents = Documents(sources, DocumentOptions(**options))
    return prepare(
        documents, tokenizer, output, workers=1, validation_share=0.1,
        source=documents.describe(), progress=False,
    )  # fmt: skip


def on_beam(beam, sources, tokenizer, output, flags=(), **options):
    return beam.prepare_on_beam(
        sources, DocumentOptions(**options), tokenizer, output, flags,
        validation_share=0.1, progress=False,
    )  # fmt: skip


def error_of(run):
    with pytest.raises(UsageError) as caught:
        run()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"deduplicate": True},
        {"deduplicate": True, "min_characters": 2, "max_characters": 2000},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_the_store_is_the_local_one_byte_for_byte(tmp_path, beam, sources, tokenizer, options):
    locally(sources, tokenizer, tmp_path / "local", **options)
    on_beam(beam, sources, tokenizer, tmp_path / "beam", **options)
    found = contents(tmp_path / "beam")
    assert found == contents(tmp_path / "local")
    assert len(found) == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beam", "corpus", "local"]


@pytest.mark.full
def test_runners_may_tell_the_first_of_equals_in_any_order(tmp_path, beam, tokenizer):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS[:9]))
    options = DocumentOptions(deduplicate=True)
    (part,) = Documents([f"text:{tmp_path}/a.txt"], options).parts()
    tokenizer.save(tmp_path / "tokenizer")
    files = {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    tokenize = beam._Tokenize(options, files, str(tmp_path))
    tokenize.setup()
    (line,) = tokenize.process((0, {"part": [part], "first": [7, 2, 5]}))
    record = beam._Record(**json.loads(line))
    found = beam._read_chunks(str(tmp_path / record.file), record)
    expected = tokenizer.encode([TEXTS[2], TEXTS[5], TEXTS[7]])
    assert [id for chunk in found for id in chunk.tokens] == sum(expected, [])


@pytest.mark.full
def test_processes_of_their_own_get_all_they_need(tmp_path, beam, sources, tokenizer):
    sources = [*sources, "docs:packaging"]
    locally(sources, tokenizer, tmp_path / "local")
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    on_beam(beam, sources, tokenizer, tmp_path / "beam", flags)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


@pytest.mark.full
def test_the_first_broken_file_is_named_as_locally(tmp_path, beam, sources, tokenizer):
    (tmp_path / "corpus" / "c.txt").write_bytes(b"fine\n\nfine\ncaf\xe9\n")
    (tmp_path / "corpus" / "d.jsonl").write_bytes(b"{\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    flags = [f"--temp_location={temporary}"]
    for options in ({}, {"deduplicate": True}):
        run = (sources, tokenizer, tmp_path / "store")
        message = error_of(lambda run=run, options=options: on_beam(beam, *run, flags, **options))
        assert "c.txt:4: not valid UTF-8" in message
        assert message == error_of(lambda run=run, options=options: locally(*run, **options))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "temporary"]
    assert not any(temporary.iterdir())


@pytest.mark.full
def test_nothing_kept_is_refused_as_locally(tmp_path, beam, sources, tokenizer):
    run, options = (sources, tokenizer, tmp_path / "store"), {"min_characters": 100_000}
    message = error_of(lambda: on_beam(beam, *run, **options))
    assert "too short" in message
    assert message == error_of(lambda: locally(*run, **options))


@pytest.fixture
def far(tmp_path, beam):
    """A file system that only Beam can reach; far://x is the folder x below this."""
    from apache_beam.io.filesystem import FileMetadata
    from apache_beam.io.localfilesystem import LocalFileSystem

    root = tmp_path / "far"
    root.mkdir()
    seen = set()

    class Far(LocalFileSystem):
        @classmethod
        def scheme(cls):
            return "far"

        def join(self, base, *paths):
            return "/".join([base.rstrip("/"), *paths])

        def split(self, path):
            return tuple(path.rsplit("/", 1))

        def has_dirs(self):
            return False

        def mkdirs(self, path):
            super().mkdirs(self.here(path))

        def exists(self, path):
            return super().exists(self.here(path))

        def metadata(self, path):
            return FileMetadata(path, os.path.getsize(self.here(path)), 0)

        def size(self, path):
            return self.metadata(path).size_in_bytes

        def last_updated(self, path):
            return self.metadata(path).last_updated_in_seconds

        def create(self, path, *args, **kwargs):
            seen.add(path)
            return super().create(self.here(path), *args, **kwargs)

        def open(self, path, *args, **kwargs):
            return super().open(self.here(path), *args, **kwargs)

        def _list(self, path):
            for file in root.rglob("*"):
                if file.is_file():
                    yield self.metadata(f"far://{file.relative_to(root)}")

        def rename(self, old, new):
            super().rename([self.here(path) for path in old], [self.here(path) for path in new])

        def delete(self, paths):
            for path in paths:
                here = root / path.removeprefix("far://")
                shutil.rmtree(here) if here.is_dir() else here.unlink()

        @staticmethod
        def here(path):
            assert path.startswith("far://")
            return str(root / path.removeprefix("far://"))

    yield root, seen
    # Beam finds file systems among the classes that there are.
    Far.scheme = classmethod(lambda cls: "gone")


@pytest.mark.full
def test_text_and_temporary_files_may_lie_elsewhere(tmp_path, beam, far, sources, tokenizer):
    root, seen = far
    locally(sources, tokenizer, tmp_path / "local", deduplicate=True)
    shutil.move(tmp_path / "corpus", root / "corpus")
    away = [source.replace(str(tmp_path / "corpus"), "far://corpus") for source in sources]
    run = (away, tokenizer, tmp_path / "beam", ["--temp_location=far://temporary"])
    on_beam(beam, *run, deduplicate=True)
    local, beams = contents(tmp_path / "local"), contents(tmp_path / "beam")
    manifests = [json.loads(files.pop("manifest.json")) for files in (local, beams)]
    for manifest in manifests:
        del manifest["checksum"]  # of the names of files, too
        for source in manifest["settings"]["source"]["sources"]:
            source["source"] = source["source"].split(":")[0]
    assert manifests[0] == manifests[1] and local == beams
    assert any(path.startswith("far://temporary/") for path in seen)
    assert not any((root / "temporary").iterdir())

    (root / "corpus" / "d.jsonl").write_text('{"texts": ""}\n')
    run = (away, tokenizer, tmp_path / "store")
    expected = "far://corpus/d.jsonl:1: no column 'text'; there are: texts"
    assert error_of(lambda: on_beam(beam, *run)) == expected


@pytest.mark.full
@pytest.mark.parametrize("fault", ["damaged", "lost"])
def test_what_workers_wrote_is_checked(tmp_path, beam, sources, tokenizer, monkeypatch, fault):
    records = beam._Run._records

    def disturbed(run, folder):
        found = records(run, folder)
        file = tmp_path / folder / found[1].file
        data = bytearray(file.read_bytes())
        data[200] ^= 1  # in the tokens of the first chunk
        file.write_bytes(data if fault == "damaged" else data[:200])
        return found

    monkeypatch.setattr(beam._Run, "_records", disturbed)
    message = error_of(lambda: on_beam(beam, sources, tokenizer, tmp_path / "store"))
    assert "was damaged on its way" in message
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.full
def test_beams_flags_are_its_own_and_misspelt_ones_are_refused(tmp_path, beam, sources, tokenizer):
    def error(*flags):
        return error_of(lambda: on_beam(beam, sources, tokenizer, tmp_path / "store", flags))

    assert error("--runer=DataflowRunner") == "Beam has no flag --runer: did you mean --runner?"
    assert "invalid int value: 'two'" in error("--direct_num_workers=two")
    assert "Unexpected pipeline runner: NoRunner" in error("--runner=NoRunner")
    assert "needs --temp_location=gs://" in error("--runner=DataflowRunner")
    assert "no-such" in error("--temp_location=far-away://no-such")
    # A job server's flags are not known to Beam's Python code.
    assert beam._parse(["--runner=FlinkRunner", "--flag_of_the_job_server=1"])
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.full
def test_the_command_takes_beams_flags(tmp_path, beam, sources, tokenizer, capsys):
    tokenizer.save(tmp_path / "tokenizer")
    command = ["prepare", "--tokenizer", str(tmp_path / "tokenizer"), "--deduplicate"]
    for source in sources:
        command += ["--input", source]
    assert cli.main([*command, "--output", str(tmp_path / "local")]) == 0
    beams = [*command, "--output", str(tmp_path / "beam"), "--beam"]
    assert cli.main([*beams, "--", "--runer=x"]) == 2
    assert "--runer" in capsys.readouterr().err
    assert cli.main([*beams, "--", "--direct_num_workers", "1"]) == 0
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")
    TokenStore.open(tmp_path / "beam").verify()


@pytest.mark.full
def test_the_guide_names_flags_that_beam_knows(beam):
    from apache_beam.options.pipeline_options import PipelineOptions

    path = Path(cli.__file__).parent.parent / "docs" / "preparing_text.md"
    if not path.exists():
        pytest.skip("the documentation is not beside the installed package")
    text = path.read_text().replace("\\\n", " ")
    commands = re.findall(r"^ +electra-jax (prepare .* --beam -- .*)$", text, re.MULTILINE)
    assert len(commands) == 4
    known = PipelineOptions([]).get_all_options()
    for command in commands:
        flags = build_parser().parse_args(shlex.split(command)).beam_flags
        assert beam._parse(flags)
        given = PipelineOptions(flags).get_all_options(retain_unknown_options=True)
        assert given.keys() == known.keys()


def test_without_beam_one_line_says_what_to_install(tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "electra_jax.data.beam", raising=False)
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "a.txt").write_text(TEXTS[0])
    command = ["prepare", "--input", f"text:{tmp_path}/a.txt", "--output", str(tmp_path / "store")]
    command += ["--tokenizer", str(tmp_path / "tokenizer")]
    assert cli.main([*command, "--beam", "--", "--runner=DirectRunner"]) == 2
    assert capsys.readouterr().err == (
        "electra-jax: --beam needs Apache Beam, which is not installed:"
        " pip install '.[beam]' in the checkout\n"
    )
    assert cli.main([*command, "--", "--runner=DirectRunner"]) == 2
    assert "only --beam takes flags after --" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
