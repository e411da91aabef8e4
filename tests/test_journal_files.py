"""The files of a journal: what is in them, who holds them, and when they go."""

import json
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from descriptors import opened
from filelock import FileLock, Timeout

from pipeline.tracking import journal as journals
from pipeline.tracking import lines
from pipeline.tracking.journal import Journal, Position

DAY = 86_400.0
END = {"event": "end", "status": "FINISHED"}


def filled(root: Path, *events: dict[str, Any], keep: bool = False) -> Journal:
    journal = Journal.create(root, resumable=keep)
    for event in events:
        journal.append(event)
    return journal


def sent(journal: Journal) -> Journal:
    """As if MLflow had all of it."""
    journal.position.offset = journal.size
    journal.acknowledge()
    return journal


def test_a_journal_has_a_name_of_its_own_that_tells_when_and_which(tmp_path: Path) -> None:
    before = time.time()
    one, other = Journal.create(tmp_path), Journal.create(tmp_path)
    assert one.folder.parent == tmp_path / "journal"
    found = re.fullmatch(r"(\d{8}-\d{6})-(\d{6})-([0-9a-f]{32})", one.folder.name)
    assert found
    assert found[3] == one.uid != other.uid
    stamp = time.mktime(time.strptime(found[1], "%Y%m%d-%H%M%S")) + int(found[2]) / 1e6
    assert before - 1e-5 <= stamp <= time.time()
    assert one.folder.name < other.folder.name
    assert journals.folder_of(tmp_path, one.uid) == one.folder
    assert journals.folder_of(tmp_path, "0" * 32) is None
    assert not one.resumable
    assert Journal.create(tmp_path, resumable=True).resumable


def test_a_reference_to_a_journal_is_told_from_an_id_of_mlflow() -> None:
    reference = journals.local("abc")
    assert reference == "journal:abc"  # it stands in files of results
    assert journals.is_local(reference)
    assert not journals.is_local("abc")
    assert journals.uid_of(reference) == "abc"


def test_events_are_lines_that_can_be_read_from_any_of_them_on(tmp_path: Path) -> None:
    events: Sequence[dict[str, Any]] = ({"event": "begin", "name": "ä\n"}, {"event": "tags", "values": {}}, END)
    journal = filled(tmp_path, *events)
    assert [event for event, _ in journal.events()] == list(events)
    ends = [end for _, end in journal.events()]
    content = (journal.folder / "events.jsonl").read_bytes()
    assert [json.loads(line) for line in content.splitlines()] == list(events)
    assert b": " not in content
    assert ends[-1] == len(content) == journal.size == journal.pending
    assert list(journal.events(ends[0])) == [(event, end) for event, end in zip(events[1:], ends[1:], strict=True)]
    assert list(journal.events(ends[-1])) == []
    assert journal.begin == events[0]
    assert Journal.create(tmp_path).begin == {}


def test_the_position_is_kept(tmp_path: Path) -> None:
    journal = filled(tmp_path, END)
    assert journal.position == Position() == journals.position_of(journal.folder)
    assert Position() == Position(0, "", None, None, False, {})
    journal.position = wanted = Position(journal.size, "sqlite:///x", "run", "7", True, {"m": "m-1"})
    assert journals.position_of(journal.folder) == Position()
    journal.acknowledge()
    assert journals.position_of(journal.folder) == wanted
    assert journal.pending == 0
    assert not (journal.folder / "position.part").exists()
    journal.close()
    assert Journal(journal.folder).position == wanted


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"offset": 3, "unknown": 1}'])
def test_a_damaged_position_is_that_of_nothing_sent(tmp_path: Path, content: str) -> None:
    journal = filled(tmp_path, END)
    (journal.folder / "position.json").write_text(content)
    assert journals.position_of(journal.folder) == Position()


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    journal = filled(tmp_path, {"event": "begin"}, END)
    journal.close()
    path = journal.folder / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":"met')
    again = Journal(journal.folder)
    assert again.size == len(whole)
    assert path.read_bytes() == whole
    again.append(END)
    assert [event["event"] for event, _ in again.events()] == ["begin", "end", "end"]


@contextmanager
def interrupted_at(count: int, passed: list[int]) -> Iterator[None]:
    """Ctrl-C at the `count`th line of journal.py and lines.py that the body runs; `passed[0]`: how many it ran."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in (journals.__file__, lines.__file__):
            return None
        if event == "line":
            passed[0] += 1
            if passed[0] == count:
                raise KeyboardInterrupt
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(earlier)


@contextmanager
def file_limit(count: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: a full disk, at a place that can be chosen."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("taken", [None, 5], ids=["room enough", "amid a line"])
def test_an_interruption_at_any_moment_leaves_all_of_an_event_or_nothing(tmp_path: Path, taken: int | None) -> None:
    journal, count, whole = filled(tmp_path, {"event": "begin"}), 0, 0
    sent(journal)
    while True:
        count, passed = count + 1, [0]
        limit = resource.RLIM_INFINITY if taken is None else journal.size + taken
        with suppress(KeyboardInterrupt, OSError), file_limit(limit), interrupted_at(count, passed):
            journal.append({"event": "metrics", "count": count, "values": {}})
        lasts = [event for event, _ in journal.events()][-1]
        whole += lasts.get("count") == count
        assert journal.pending == journal.size - journal.position.offset
        if passed[0] < count:
            break
        assert bool(journal.pending) == (lasts["event"] == "metrics")  # what is in the file is not taken for sent
        journal.append({"event": "after", "count": count})
        assert [event for event, _ in journal.events()][-1] == {"event": "after", "count": count}
        assert journal.size == (journal.folder / "events.jsonl").stat().st_size
        sent(journal)
    assert count > 15
    assert bool(whole) == (taken is None)


def test_a_full_disk_takes_all_of_an_event_or_nothing(tmp_path: Path) -> None:
    journal, refused = filled(tmp_path, {"event": "begin"}), []
    whole = journal.size
    for more in range(0, 40, 7):
        with file_limit(whole + more), pytest.raises(OSError, match="too large"):
            journal.append({"event": "metrics", "name": "x" * 100, "value": more})
        refused.append(more)
        assert journal.size == (journal.folder / "events.jsonl").stat().st_size == whole
    journal.append(END)
    assert [event["event"] for event, _ in journal.events()] == ["begin", "end"]
    with file_limit(20), pytest.raises(OSError, match="too large"):
        journal.refuse(END, "of which a part would be left" * 3)
    journal.refuse(END, "no")
    assert json.loads((journal.folder / "refused.jsonl").read_text())["reason"] == "no"


@pytest.mark.parametrize("kept", [0, 1, 2.5], ids=["nothing", "a line", "amid a line"])
def test_events_that_a_power_failure_took_after_they_were_sent_do_not_hide_those_that_follow(
    tmp_path: Path, kept: float
) -> None:
    journal = sent(filled(tmp_path, *[{"event": "begin", "n": 1000 + n} for n in range(4)]))
    journal.close()
    line = journal.size // 4
    os.truncate(journal.folder / "events.jsonl", int(kept * line))
    again = Journal(journal.folder)
    assert again.size == int(kept) * line
    assert again.pending == again.size  # all is sent again, which changes nothing
    again.append(END)
    assert [event for event, _ in again.events(again.position.offset)][-1] == END


def test_one_process_holds_it(tmp_path: Path) -> None:
    journal = filled(tmp_path, END)
    began = time.monotonic()
    with pytest.raises(Timeout):
        Journal(journal.folder)
    assert time.monotonic() - began < 0.2
    with pytest.raises(Timeout):
        Journal(journal.folder, wait_seconds=0.3)
    assert time.monotonic() - began > 0.3
    journal.close()
    Journal(journal.folder).close()


def test_nothing_is_held_any_longer_whichever_thread_lets_go(tmp_path: Path) -> None:
    closed, finished = filled(tmp_path, END), sent(filled(tmp_path, END))
    for journal, let_go in ((closed, closed.close), (finished, finished.finish)):
        assert len(opened(journal.folder)) == 2
        thread = threading.Thread(target=let_go)
        thread.start()
        thread.join()
        assert opened(journal.folder) == []


def test_one_that_cannot_be_opened_is_not_held(tmp_path: Path) -> None:
    journal = filled(tmp_path, END)
    journal.close()
    (journal.folder / "events.jsonl").unlink()
    (journal.folder / "events.jsonl").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        Journal(journal.folder)
    assert opened(journal.folder) == [], raised
    with FileLock(f"{journal.folder}.lock", timeout=0):
        pass


def test_what_must_survive_the_power_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: synchronised.append(str(Path(f"/proc/self/fd/{number}").readlink()))
    )
    journal = filled(tmp_path, END)
    assert synchronised == []
    journal.to_disk()
    assert synchronised == [str(journal.folder / "events.jsonl")]


def test_one_that_is_gone_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    folder = tmp_path / "journal/20260101-000000-000000-abc"
    with pytest.raises(FileNotFoundError) as raised:
        Journal(folder)
    assert raised.value.filename == str(folder)
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_folder_that_cannot_hold_a_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(OSError, match=r"journal/\d{8}-\d{6}-\d{6}-[0-9a-f]{32}'$"):
        Journal.create(tmp_path)


def test_files_that_events_name_are_copied(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/b.txt").write_text("b")
    places = [
        journal.attach(tmp_path / "a.txt"),
        journal.attach(tmp_path / "a.txt"),
        journal.attach(tmp_path / "folder"),
    ]
    (tmp_path / "a.txt").write_text("changed")
    assert all(re.fullmatch(r"files/[0-9a-f]{12}/(a\.txt|folder)", place) for place in places)
    assert len(set(places)) == 3
    assert [(journal.folder / place).read_text() for place in places[:2]] == ["a", "a"]
    assert (journal.folder / places[2] / "b.txt").read_text() == "b"
    later = journal.attach_folder("model")
    assert later.name == "model"
    assert later.parent.is_dir()
    assert not later.exists()


SESSIONS = {
    "nothing": ([], True),
    "begun": (["begin"], False),
    "ended": (["begin", "metrics", "end"], True),
    "goes on": (["begin", "end", "resume"], False),
    "ended again": (["begin", "end", "resume", "tags", "end"], True),
    "another's run": (["adopt", "metrics"], False),
    "logged to after its end": (["begin", "end", "tags"], True),
}


@pytest.mark.parametrize(("events", "ended"), SESSIONS.values(), ids=SESSIONS)
def test_whether_its_latest_session_has_ended(tmp_path: Path, events: list[str], ended: bool) -> None:
    assert filled(tmp_path, *({"event": event} for event in events)).ended == ended


def test_it_goes_when_nothing_of_it_is_needed(tmp_path: Path) -> None:
    pending, unended = filled(tmp_path, END), sent(filled(tmp_path, {"event": "begin"}))
    kept, refused = sent(filled(tmp_path, END, keep=True)), sent(filled(tmp_path, END))
    refused.refuse({"event": "params", "values": {"a": "é"}}, "not so")
    for journal in (pending, unended, kept, refused):
        assert not journal.finish()
        assert journal.folder.exists()
    line = json.loads((refused.folder / "refused.jsonl").read_text())
    assert line == {"reason": "not so", "event": "params", "values": {"a": "é"}}
    done = sent(filled(tmp_path, END))
    assert done.finish()
    assert not done.folder.exists()
    assert not Path(f"{done.folder}.lock").exists()


def test_a_released_one_goes_as_soon_as_it_was_sent(tmp_path: Path) -> None:
    kept, unsent = sent(filled(tmp_path, END, keep=True)), filled(tmp_path, END, keep=True)
    journals.release(kept.folder)  # this process holds it: only that nobody goes on with it is noted
    assert not kept.resumable
    for journal in (kept, unsent):
        journal.close()
        journals.release(journal.folder)
    assert not kept.folder.exists()
    assert unsent.folder.exists()
    assert not unsent.resumable
    Journal(unsent.folder).close()
    journals.release(tmp_path / "journal/nowhere")


def old(journal: Journal, days: float) -> Journal:
    """Last added to so long ago."""
    journal.close()
    os.utime(journal.folder / "events.jsonl", (time.time() - days * DAY,) * 2)
    return journal


def test_a_new_process_removes_what_waits_for_nobody(tmp_path: Path) -> None:
    journals.tidy(tmp_path)
    gone = [old(sent(filled(tmp_path, END)), 0), old(sent(filled(tmp_path, END, keep=True)), 14.5)]
    stays = {
        "may go on": old(sent(filled(tmp_path, END, keep=True)), 13),
        "not sent": old(filled(tmp_path, END), 15),
        "empty": old(Journal.create(tmp_path), 0),
    }
    held = sent(filled(tmp_path, END))
    left = tmp_path / "journal/20260101-000000-000000-abc.lock"  # by one that was killed between the two removals
    left.touch()
    journals.tidy(tmp_path)
    assert [journal.folder.exists() for journal in gone] == [False, False]
    assert {name: journal.folder.exists() for name, journal in stays.items()} == dict.fromkeys(stays, True)
    assert stays["may go on"].resumable
    assert held.folder.exists()
    assert not left.exists()
    with FileLock(f"{stays['not sent'].folder}.lock", timeout=0):  # nobody is left with it
        pass
