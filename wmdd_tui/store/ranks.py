"""The ranks of a run on several devices, as their own events tell: what each does, how fast, and whether it lives."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine import events
from wmdd_tui.store.reader import MOST_RANKS

#: A rank that is silent for so long while others write is lost; it beats every two seconds.
LOST_SECONDS = 30.0
#: A rank this much slower than the middle one holds the others up.
STRAGGLER_SHARE = 0.7
#: A speed is taken over at least so long.
SPEED_SECONDS = 5.0
#: Stages whose units are divided among the ranks; in the others all do the same steps, or the first does all.
DIVIDED = frozenset({"statistics", "barycenter", "recover", "relabel"})
STAGES = DIVIDED | {"data", "squeeze", "train"}


@dataclass
class RankFacts:
    """What is known of one rank. ``rate`` is in units of its stage a second, None until it is known."""

    number: int
    device: str = ""
    host: str = ""
    stage: str = ""
    chunk: int | None = None
    rate: float | None = None
    last: float = 0.0
    ended: str = ""
    memory: events.Memory | None = None
    progress: dict[str, events.Progress] = field(default_factory=dict)
    _anchor: events.Progress | None = None

    def take(self, event: events.Event) -> None:
        """Take in one of its events."""
        self.last = max(self.last, event.t)
        match event:
            case events.Hello():
                self.device, self.host, self.ended = event.device, event.host, ""
                self.progress, self._anchor, self.rate, self.chunk = {}, None, None, None
            case events.Stage(what="begin"):
                self.stage, self._anchor, self.rate, self.chunk = event.stage, None, None, None
            case events.Progress() if event.stage in STAGES:
                self._advance(event)
            case events.Iters():
                self.chunk = event.chunk
            case events.Memory():
                self.memory = event
            case events.End():
                self.ended = event.status

    def _advance(self, event: events.Progress) -> None:
        self.progress[event.stage] = event
        anchor = self._anchor
        uncounted = bool(event.note)  # what is done then is no unit of the stage
        if anchor is None or anchor.stage != event.stage or event.done < anchor.done or event.t < anchor.t or uncounted:
            self._anchor = event
        elif event.t > anchor.t and event.done > anchor.done:
            self.rate = (event.done - anchor.done) / (event.t - anchor.t)
            if event.t - anchor.t > SPEED_SECONDS:
                self._anchor = event


@dataclass(frozen=True)
class RankRow:
    """One rank for a table; ``state`` is working, slow, waiting, lost, or how it ended. Figures None where unknown."""

    number: int
    device: str
    host: str
    stage: str
    done: int
    total: int
    chunk: int | None
    rate: float | None
    bytes: int | None
    utilisation: float | None
    state: str


class RankBook:
    """All ranks of a run; empty where one process does it alone."""

    def __init__(self) -> None:
        self._ranks: dict[int, RankFacts] = {}
        self.count = 1

    def begin(self, hello: events.Hello) -> None:
        """The first rank says how many there are."""
        self.count = min(hello.ranks, MOST_RANKS)
        self._ranks = {number: facts for number, facts in self._ranks.items() if number < self.count}

    def take(self, event: events.Event) -> None:
        """Take in an event of any rank; of a process that is alone there is nothing to tell."""
        if event.rank >= MOST_RANKS or (self.count < 2 and not event.rank):
            return
        facts = self._ranks.get(event.rank)
        if facts is None:
            facts = self._ranks[event.rank] = RankFacts(event.rank)
        facts.take(event)

    def joint(self, event: events.Progress) -> events.Progress:
        """The progress of all ranks together, where the stage is divided among them."""
        if self.count < 2 or event.stage not in DIVIDED:
            return event
        found = [facts.progress[event.stage] for facts in self._ranks.values() if event.stage in facts.progress]
        done, total = sum(one.done for one in found), sum(one.total for one in found)
        return events.Progress(t=event.t, stage=event.stage, done=done, total=total, unit=event.unit, note=event.note)

    def rows(self) -> list[RankRow]:
        """A row for each rank, by number; none in a run of one."""
        if self.count < 2:
            return []
        known = [self._ranks.get(number, RankFacts(number)) for number in range(self.count)]
        newest = max((facts.last for facts in known), default=0.0)
        stage = known[0].stage
        rates = [facts.rate for facts in known if facts.rate is not None and facts.stage == stage]
        middle = sorted(rates)[len(rates) // 2] if len(rates) > 1 else 0.0
        return [_row(facts, newest, middle, stage) for facts in known]


def _row(facts: RankFacts, newest: float, middle: float, stage: str) -> RankRow:
    progress = facts.progress.get(facts.stage)
    memory = facts.memory
    done, total = (progress.done, progress.total) if progress else (0, 0)
    if facts.ended:
        state = facts.ended
    elif newest - facts.last > LOST_SECONDS:
        state = "lost"
    elif facts.stage in DIVIDED and total and done == total:
        state = "waiting"
    elif facts.stage == stage and facts.rate is not None and facts.rate < STRAGGLER_SHARE * middle:
        state = "slow"
    else:
        state = "working"
    used = None if memory is None else memory.rss if memory.allocated is None else memory.allocated
    load = None if memory is None else memory.cpu_percent if memory.utilisation is None else memory.utilisation
    return RankRow(
        facts.number, facts.device, facts.host, facts.stage, done, total, facts.chunk, facts.rate, used, load, state
    )  # fmt: skip
