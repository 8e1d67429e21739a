"""Other projects' data sets: each format's real keys become rows of ours, and no bad row is lost."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from owlcap.config import DataSection
from owlcap.data.formats.detect import open_source
from owlcap.data.importing import ImportReport, import_data
from owlcap.data.rows import read_rows
from owlcap.errors import DataError
from owlcap.types import Sample

ASKED, TOLD = "What happens?", "A girl waves."
HUMAN = [{"from": "human", "value": f"<video>\n{ASKED}"}, {"from": "gpt", "value": TOLD}]
CHAT = [{"role": "user", "content": f"<video>{ASKED}"}, {"role": "assistant", "content": TOLD}]

ROWS: dict[str, dict[str, Any]] = {
    "owlcap": {"video": "a.mp4", "conversations": [{"value": f"<video>\n{ASKED}"}, {"value": TOLD}]},
    "swift": {"messages": CHAT, "videos": ["a.mp4"]},
    "sharegpt": {"conversations": HUMAN, "videos": ["a.mp4"]},
    "llava": {
        "id": "v_1",
        "data_source": "0_30_s_academic",
        "video": "a.mp4",
        "conversations": [{"from": "human", "value": f"<image>\n{ASKED}"}, {"from": "gpt", "value": TOLD}],
    },
    "trl": {
        "prompt": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": ASKED}]}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": TOLD}]}],
        "videos": ["a.mp4"],
    },
    "hf": {"video": "a.mp4", "question": ASKED, "caption": TOLD},
}


def put(path: Path, *rows: Any) -> Path:
    (path.parent / "a.mp4").write_bytes(b"video")
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def imported(source: Path, **options: Any) -> tuple[ImportReport, list[Sample]]:
    out = source.parent / "out" / "rows.jsonl"
    report = import_data(source, out, **options)
    return report, read_rows(out, check_files=True)


def problems(report: ImportReport) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.problems_file.read_text().splitlines()]


@pytest.mark.parametrize("format", ROWS)
def test_a_row_of_each_format_is_recognised_and_becomes_a_row_of_ours(tmp_path: Path, format: str) -> None:
    source = put(tmp_path / "data.jsonl", ROWS[format])

    report, (sample,) = imported(source)

    assert report.source.format == format
    assert "data.jsonl:1 has" in report.source.evidence
    assert (sample.prompt.replace("<video>", "").strip(), sample.caption) == (ASKED, TOLD)
    assert Path(sample.video).resolve() == tmp_path / "a.mp4"


@pytest.mark.parametrize("format", ["owlcap", "swift", "sharegpt", "llava", "trl"])
def test_a_format_that_is_asked_for_is_not_guessed(tmp_path: Path, format: str) -> None:
    report, samples = imported(put(tmp_path / "data.jsonl", ROWS[format]), format=format)

    assert (report.source.evidence, len(samples)) == ("as asked for", 1)


def test_a_json_list_is_read_like_lines(tmp_path: Path) -> None:
    source = put(tmp_path / "data.json", json.dumps([ROWS["llava"], {**ROWS["llava"], "id": "v_2"}], indent=1))

    assert [sample.id for sample in imported(source)[1]] == ["v_1", "v_2"]


def test_an_index_of_owlcap_repeats_and_cuts_as_the_released_script_does(tmp_path: Path) -> None:
    put(tmp_path / "x_1.jsonl", ROWS["owlcap"])
    put(tmp_path / "y.jsonl", *[ROWS["owlcap"]] * 5)
    index = {
        "x": {"root": "", "annotation": "x_*.jsonl", "repeat_time": 2},
        "y": {"root": "", "annotation": "y.jsonl", "repeat_time": 0.5},
    }
    report, samples = imported(put(tmp_path / "index.json", json.dumps(index)))

    assert [sample.id for sample in samples] == ["x_1-000001", "x_1-000001-repeat2", "y-000001", "y-000002"]
    assert (report.num_repeats, report.num_left_out) == (1, 3)


def test_owlcaps_times_are_kept_and_zero_means_the_whole_video(tmp_path: Path) -> None:
    cut = {**ROWS["owlcap"], "start_time": 1.5, "end_time": 4}
    whole = {**ROWS["owlcap"], "start_time": 0.0, "end_time": None}

    _, samples = imported(put(tmp_path / "data.jsonl", cut, whole))

    assert [(sample.start_s, sample.end_s) for sample in samples] == [(1.5, 4.0), (None, None)]


def test_llama_factorys_description_may_rename_columns_and_tags(tmp_path: Path) -> None:
    row = {"chat": [{"who": "me", "says": f"<video>{ASKED}"}, {"who": "it", "says": TOLD}], "clips": ["a.mp4"]}
    put(tmp_path / "mine.json", json.dumps([row]))
    columns = {"messages": "chat", "videos": "clips"}
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "it"}
    entry = {"file_name": "mine.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    text_only = {"file_name": "other.json"}
    put(tmp_path / "dataset_info.json", json.dumps({"mine": entry, "alpaca": text_only}))

    report = import_data(tmp_path, tmp_path / "out.jsonl")

    assert (report.source.format, report.num_written) == ("sharegpt", 1)
    assert read_rows(tmp_path / "out.jsonl")[0].caption == TOLD


def test_a_conversation_of_several_questions_becomes_several_rows(tmp_path: Path) -> None:
    more = [{"from": "human", "value": "Who is it?"}, {"from": "gpt", "value": "A child."}]

    report, samples = imported(put(tmp_path / "data.jsonl", {**ROWS["llava"], "conversations": [*HUMAN, *more]}))

    assert [(sample.id, sample.caption) for sample in samples] == [("v_1", TOLD), ("v_1-turn2", "A child.")]
    assert report.num_split == 1


def test_system_text_stands_before_the_question(tmp_path: Path) -> None:
    row = {**ROWS["swift"], "messages": [{"role": "system", "content": "Be brief."}, *CHAT]}

    assert imported(put(tmp_path / "data.jsonl", row))[1][0].prompt.startswith("Be brief.")


def test_a_row_for_grpo_takes_its_solution_as_caption_and_reference(tmp_path: Path) -> None:
    _, (sample,) = imported(put(tmp_path / "data.jsonl", {**ROWS["swift"], "messages": CHAT[:1], "solution": TOLD}))

    assert (sample.caption, sample.reference) == (TOLD, TOLD)


def test_a_data_set_on_disk_may_store_its_videos_inside(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Value, Video

    features = Features({"video": Video(), "caption": Value("string")})
    rows = {"video": [{"bytes": b"frames", "path": "x.webm"}], "caption": [TOLD]}
    Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))

    report, (sample,) = imported(tmp_path / "set")

    assert (report.source.format, sample.caption) == ("hf", TOLD)
    assert Path(sample.video).read_bytes() == b"frames"
    assert Path(sample.video).suffix == ".webm"


def test_splits_are_not_mixed(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([ROWS["hf"]])
    DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "set"))

    with pytest.raises(DataError, match="leak") as caught:
        import_data(tmp_path / "set", tmp_path / "out.jsonl")
    assert caught.value.allowed == "test, train"


def tar_of(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_shards_of_webdataset_give_their_captions_and_videos(tmp_path: Path) -> None:
    tar_of(tmp_path / "0.tar", k1__mp4=b"one", k1__txt=TOLD.encode(), k2__mp4=b"two", k2__json=b'{"caption": "Two."}')
    tar_of(tmp_path / "1.tar", k1__mp4=b"three", k1__json=json.dumps({"conversations": HUMAN}).encode())

    report = import_data(tmp_path, tmp_path / "out" / "rows.jsonl")

    samples = read_rows(tmp_path / "out" / "rows.jsonl", check_files=True)
    assert report.source.format == "webdataset"
    assert [(sample.id, Path(sample.video).read_bytes()) for sample in samples] == [
        ("0-k1", b"one"),
        ("0-k2", b"two"),
        ("1-k1", b"three"),
    ]


def test_a_shard_that_ends_early_is_told_and_the_samples_before_are_kept(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "0.tar", k1__mp4=b"one", k1__txt=b"One.", k2__mp4=b"x" * 5000, k2__txt=b"Two.")
    whole.write_bytes(whole.read_bytes()[:4000])  # in the second video

    report = import_data(tmp_path / "0.tar", tmp_path / "out" / "rows.jsonl")

    assert report.num_written == 1
    assert [problem["kind"] for problem in problems(report)] == ["broken tar"]


def test_every_bad_row_is_named_counted_and_kept(tmp_path: Path) -> None:
    source = put(tmp_path / "data.jsonl", ROWS["llava"], '{"video": "a.mp4", "conv', {**ROWS["llava"]}, "[1]")
    absent = {**ROWS["llava"], "id": "v_2", "video": "absent.mp4"}
    with source.open("ab") as file:
        file.write('{"video": "a.mp4", "caf\xe9": 1}\n'.encode("latin-1"))
        file.write(json.dumps(absent).encode() + b"\n")

    report, samples = imported(source)

    assert [sample.id for sample in samples] == ["v_1"]
    found = problems(report)
    assert [(problem["where"].rpartition(":")[2], problem["kind"]) for problem in found] == [
        ("2", "broken JSON"),
        ("3", "duplicate id"),
        ("4", "not an object"),
        ("5", "wrong encoding"),
        ("6", "missing video"),
    ]
    assert found[0]["row"] == '{"video": "a.mp4", "conv'
    assert found[4]["row"] == absent
    assert sum(report.problems.values()) + report.num_written == report.num_read


def test_a_broken_list_keeps_what_stands_before_the_break(tmp_path: Path) -> None:
    text = json.dumps([ROWS["llava"]], indent=0)[:-1] + ',\n{"id": broken}]'

    report, samples = imported(put(tmp_path / "data.json", text))

    (problem,) = problems(report)
    assert len(samples) == 1
    assert problem["kind"] == "broken JSON"
    assert problem["row"].startswith('{"id": broken}')


@pytest.mark.parametrize(
    ("text", "num_written", "where"),
    [
        ("[{}\n {}, {}]", 1, "2 item 2"),
        ("[{}, {}", 2, "2 item 3"),
        ("[{}, {}] {}", 2, "1 item 3"),
    ],
)
def test_a_list_that_is_no_json_is_told_by_line_and_item(
    tmp_path: Path, text: str, num_written: int, where: str
) -> None:
    rows = [json.dumps({**ROWS["llava"], "id": f"v{number}"}) for number in range(3)]

    report, samples = imported(put(tmp_path / "data.json", text.replace("{}", "%s") % tuple(rows[: text.count("{}")])))

    (problem,) = problems(report)
    assert (len(samples), problem["kind"]) == (num_written, "broken JSON")
    assert problem["where"] == f"{tmp_path / 'data.json'}:{where}"


def test_a_bad_item_of_a_list_on_one_line_is_named_by_its_number(tmp_path: Path) -> None:
    text = json.dumps([ROWS["llava"], 3, {**ROWS["llava"], "id": "w", "video": "absent.mp4"}])

    report, _ = imported(put(tmp_path / "data.json", text))

    assert [problem["where"] for problem in problems(report)] == [
        f"{tmp_path / 'data.json'}:1 item 2",
        f"{tmp_path / 'data.json'}:1 item 3",
    ]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"video": ["a.mp4", "b.mp4"]}, "several videos"),
        ({"video": None}, "no video"),
        ({"id": {"a": 1}}, "id"),
        ({"id": True}, "id"),
        ({"conversations": [*HUMAN, {"from": "tool", "value": "x"}]}, "roles"),
        ({"conversations": [HUMAN[0], HUMAN[0]]}, "roles"),
        ({"conversations": HUMAN[:1]}, "no caption"),
        ({"conversations": "none"}, "messages"),
        ({"conversations": [HUMAN[0], {"from": "gpt", "value": " "}]}, "bad row"),
    ],
)
def test_a_row_that_cannot_be_ours_says_why(tmp_path: Path, change: dict[str, Any], kind: str) -> None:
    bad = {**ROWS["llava"], "id": "bad", **change}

    report, _ = imported(put(tmp_path / "data.jsonl", ROWS["llava"], bad), format="llava")

    assert list(report.problems) == [kind]


def test_nothing_left_is_an_error_that_keeps_the_problems(tmp_path: Path) -> None:
    source = put(tmp_path / "data.jsonl", {**ROWS["llava"], "video": "absent.mp4"})

    with pytest.raises(DataError, match="No row"):
        import_data(source, tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl.problems.jsonl").is_file()
    assert not (tmp_path / "rows.jsonl").exists()


def test_unknown_rows_are_refused_with_their_keys(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no format") as caught:
        open_source(put(tmp_path / "data.jsonl", {"foo": 1, "bar": 2}))
    assert "bar, foo" in str(caught.value.allowed)


def test_videos_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    put(tmp_path / "clips" / "unused.jsonl")
    source = tmp_path / "data.jsonl"
    source.write_text(json.dumps(ROWS["llava"]) + "\n")

    _, (sample,) = imported(source, video_root=tmp_path / "clips")

    assert Path(sample.video).resolve() == tmp_path / "clips" / "a.mp4"


def test_rows_keep_what_is_ours_when_they_come_back(tmp_path: Path) -> None:
    own = {**ROWS["swift"], "id": "a", "reference": "A girl in red waves.", "keypoints": ["a girl waves"]}

    _, (sample,) = imported(put(tmp_path / "data.jsonl", own))

    assert (sample.reference, sample.keypoints) == ("A girl in red waves.", ("a girl waves",))
    assert read_rows(tmp_path / "out" / "rows.jsonl", DataSection(train="x"))[0] == sample


def test_a_file_of_another_encoding_is_told_as_that(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(ROWS["llava"]).encode("utf-16"))

    with pytest.raises(DataError, match="not UTF-8 but UTF-16") as caught:
        open_source(path)
    assert (caught.value.where, "iconv -f UTF-16" in str(caught.value.cure)) == (str(path), True)


@pytest.mark.parametrize("format", ["auto", "llava"])
def test_an_empty_file_has_no_rows(tmp_path: Path, format: str) -> None:
    (tmp_path / "data.jsonl").touch()
    with pytest.raises(DataError, match="has no rows"):
        open_source(tmp_path / "data.jsonl", format)


def test_a_problem_of_many_rows_is_told_once_with_a_few_examples(tmp_path: Path) -> None:
    gone = [{**ROWS["owlcap"], "id": f"gone-{number}", "video": f"gone/{number}.mp4"} for number in range(1000)]

    report, _ = imported(put(tmp_path / "data.jsonl", ROWS["owlcap"], *gone))

    assert dict(report.problems) == {"missing video": 1000}
    assert report.text().count("there is no file") == 3
    assert "and 997 more" in report.text()
    assert len(report.problems_file.read_text().splitlines()) == 1000


def test_made_up_ids_of_files_of_one_name_differ(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder / "train.jsonl", ROWS["owlcap"])
    index = {name: {"annotation": f"{name}/train.jsonl"} for name in ("a", "b")} | {
        "c": {"annotation": "b/train.jsonl"}
    }

    report, samples = imported(put(tmp_path / "index.json", json.dumps(index)))

    assert [sample.id for sample in samples] == ["a-train-000001", "b-train-000001", "b-train-2-000001"]
    assert not report.problems


def test_made_up_ids_never_push_out_a_row_with_an_id_of_its_own(tmp_path: Path) -> None:
    own = {**ROWS["owlcap"], "id": "data-000001"}

    report, samples = imported(put(tmp_path / "data.jsonl", ROWS["owlcap"], own, own))

    assert [sample.id for sample in samples] == ["data-000001", "data-000001-2"]
    assert (report.num_renamed, dict(report.problems)) == (1, {"duplicate id": 1})


@pytest.mark.parametrize("spelling", ["data.jsonl", "x/../data.jsonl", "link.jsonl"])
def test_the_source_is_never_written_over(tmp_path: Path, spelling: str) -> None:
    source = put(tmp_path / "data.jsonl", ROWS["owlcap"])
    (tmp_path / "x").mkdir()
    (tmp_path / "link.jsonl").symlink_to(source)
    before = source.read_bytes()

    with pytest.raises(DataError, match="is the one that is read"):
        import_data(source, tmp_path / spelling)

    assert source.read_bytes() == before


def test_the_problems_of_an_import_are_not_written_over_the_source(tmp_path: Path) -> None:
    source = put(tmp_path / "rows.jsonl.problems.jsonl", ROWS["owlcap"])
    with pytest.raises(DataError, match="is the one that is read"):
        import_data(source, tmp_path / "rows.jsonl")


def test_an_import_that_fails_keeps_the_rows_of_the_one_before(tmp_path: Path) -> None:
    source = put(tmp_path / "data.jsonl", ROWS["owlcap"])
    imported(source)
    (tmp_path / "a.mp4").unlink()

    with pytest.raises(DataError, match="1 read, 1 missing video") as caught:
        imported(source)

    assert "--video-root" in str(caught.value.cure)
    assert len(read_rows(tmp_path / "out" / "rows.jsonl")) == 1


def test_an_import_is_jsonl(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        import_data(put(tmp_path / "data.jsonl", ROWS["owlcap"]), tmp_path / "rows.parquet")
    assert caught.value.cure == f"name it {tmp_path / 'rows.jsonl'}"


@pytest.mark.parametrize(("name", "format"), [("0.tar", "swift"), ("data.jsonl", "webdataset")])
def test_tars_and_row_formats_are_not_taken_for_one_another(tmp_path: Path, name: str, format: str) -> None:
    put(tmp_path / "data.jsonl", ROWS["swift"])
    tar_of(tmp_path / "0.tar", k__mp4=b"one", k__txt=b"One.")
    with pytest.raises(DataError, match="does not fit"):
        open_source(tmp_path / name, format)


@pytest.mark.parametrize("format", ["llava", "sharegpt", "owlcap"])
def test_no_format_that_is_asked_for_drops_the_times(tmp_path: Path, format: str) -> None:
    row = {**ROWS["llava"], "videos": ["a.mp4"], "start_time": 1.5, "end_time": 4}

    _, (sample,) = imported(put(tmp_path / "data.jsonl", row), format=format)

    assert (sample.start_s, sample.end_s) == (1.5, 4.0)


def test_overlays_of_our_own_rows_are_kept_and_still_found(tmp_path: Path) -> None:
    source = put(tmp_path / "data.jsonl", {**ROWS["swift"], "overlays": ["overlays/0.png"]})

    _, (sample,) = imported(source)

    assert Path(sample.overlays[0]).resolve() == tmp_path / "overlays" / "0.png"
