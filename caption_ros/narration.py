# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From captions at frame rate to the few sentences worth saying aloud.

Captions of each frame are matched to what was seen before, by meaning and by region label. What
differs from what was last said has to last, the longer the more it flickers; then one sentence
tells all that changed. Times are passed in, so that scripted sequences test it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from caption_ros.caption import Caption
from caption_ros.record import JOINER
from caption_ros.wording import appeared, content_words, gone

_FLICKER_WINDOW_S = 10.0
_PATIENCE_OF_A_RETURN = 2  # times settle_s, for each return to what was seen shortly before
_MOST_PATIENCE = 6
_SIGHTS_KEPT = 8
_LEAST_SIGHTINGS = 2  # one frame may always be a mistake
_MOST_THINGS_SAID = 6
_MOST_TRACKS = 512  # twice the most regions of a frame

Meaning = frozenset[str]


@dataclass(eq=False)
class _Thing:
    """One region, or the scene, over time: what was said of it and what is seen of it."""

    label: object  # what the region is known by
    said: Meaning | None = None  # None: not said to be there
    said_text: str = ''
    seen: Meaning | None = None  # None: not in the last frame
    seen_text: str = ''
    since_s: float = 0.0
    sightings: int = 0
    recent: deque[tuple[float, Meaning | None, bool]] = field(
        default_factory=lambda: deque(maxlen=_SIGHTS_KEPT))  # left when, what, for something known

    def see(self, meaning: Meaning | None, text: str, now_s: float) -> bool:
        """Take one frame's sight; return True when it is back at what was said."""
        if meaning == self.seen and self.sightings:
            self.sightings += 1
            return False
        returns = any(now_s - at_s < _FLICKER_WINDOW_S and was == meaning
                      for at_s, was, _ in self.recent)
        if self.sightings:
            self.recent.append((now_s, self.seen, returns))
        self.seen, self.seen_text = meaning, text or self.seen_text
        self.since_s, self.sightings = now_s, 1
        return meaning == self.said

    @property
    def differs(self) -> bool:
        return self.seen != self.said

    def has_settled(self, settle_s: float, now_s: float) -> bool:
        returns = sum(returned and now_s - at_s < _FLICKER_WINDOW_S
                      for at_s, _, returned in self.recent)
        patience = min(1 + _PATIENCE_OF_A_RETURN * returns, _MOST_PATIENCE)
        return (self.sightings >= _LEAST_SIGHTINGS
                and now_s - self.since_s >= settle_s * patience)


class Narrator:
    """Decides when there is something to say about a stream of captions, and says it.

    Two captions mean the same when they have the same content words, in whatever order, so
    "a red mug" is "a mug that is red". Frames with a mask are compared region by region, others
    by the caption of the scene.

    Args:
        min_gap_s: Least time between two sentences, seconds.
        max_silence_s: Say what is there again after that long, seconds; 0 never does.
        settle_s: How long a change has to last, seconds; up to six times as long for a region
            that went back and forth in the last 10 s.
    """

    def __init__(self, min_gap_s: float = 2.0, max_silence_s: float = 0.0,
                 settle_s: float = 0.5) -> None:
        self.min_gap_s = min_gap_s
        self.max_silence_s = max_silence_s
        self._settle_s = settle_s
        self._regions: dict[str, list[_Thing]] = {}  # by source
        self._scene: list[_Thing] = []
        self._said_s = float('-inf')
        self._described = frozenset[str]()
        self._saw_no_region = False
        self._waits_since_s: float | None = None
        self.narrations = 0
        self.repeats = 0
        self.flickers = 0  # differences that went away before they were said

    def update(self, captions: Sequence[Caption], now_s: float, *, masked: bool,
               source: str = 'mask') -> str:
        """Take the captions of one frame.

        Args:
            captions: What was said of the frame. One that a filter held back tells that its
                region is there, and nothing of what it is.
            now_s: Time by a steady clock, seconds; never less than before.
            masked: True when the frame came with a mask: regions that it lacks are then gone.
                Without one only the caption of the scene counts.
            source: Who told the regions: what one does not know of is not gone for another.

        Returns:
            A sentence to say now, or an empty text.
        """
        sights = [caption for caption in captions if (caption.region is not None) == masked]
        things = self._regions.setdefault(source, []) if masked else self._scene
        self._match(things, sights, now_s)
        scene = '' if not masked else next(
            (c.text for c in captions if c.region is None and not c.held_back), '')
        text = self._news(things, scene, now_s)
        # What is neither there nor was said to be is not worth remembering.
        things[:] = [t for t in things if t.said is not None or t.seen is not None]
        del things[:-_MOST_TRACKS]
        self._saw_no_region |= masked and not things
        if text:
            self.narrations += 1
        elif self._is_silent_too_long(now_s) and not any(t.differs for t in things):
            text = scene or _listed([t.said_text for t in things if t.said is not None])
            self.repeats += bool(text)
        if text:
            self._said_s = now_s
        return text

    def _match(self, things: list[_Thing], sights: list[Caption], now_s: float) -> None:
        """Tell each thing what the frame shows of it; what is new becomes a thing.

        Segmenters may number the same objects anew in each frame: meaning goes before label.
        """
        unseen = list(things)
        open_sights = []
        for sight in sights:
            label = None if sight.region is None else sight.region.id or sight.region.label
            meaning = None if sight.held_back else content_words(sight.text)
            open_sights.append((label, meaning, sight.text))
        rules = (
            lambda t, label, meaning: t.label == label and meaning in (t.seen, t.said),
            lambda t, label, meaning: meaning is not None and meaning in (t.seen, t.said),
            lambda t, label, meaning: t.label == label,
        )
        for rule in rules:
            left = []
            for label, meaning, text in open_sights:
                thing = next((t for t in unseen if rule(t, label, meaning)), None)
                if thing is None:
                    left.append((label, meaning, text))
                    continue
                unseen.remove(thing)
                if meaning is None:  # there, but nobody knows what: as it was
                    meaning, text = thing.said or thing.seen, thing.said_text or thing.seen_text
                thing.label = label
                self.flickers += thing.see(meaning, text, now_s)
            open_sights = left
        for thing in unseen:
            self.flickers += thing.see(None, '', now_s)
        for label, meaning, text in open_sights:
            if meaning is not None:
                things.append(_Thing(label))
                things[-1].see(meaning, text, now_s)

    def _news(self, things: list[_Thing], scene: str, now_s: float) -> str:
        """Return what to say about the things that changed for good; mark them as said."""
        differing = [t for t in things if t.differs]
        settled = [t for t in differing if t.has_settled(self._settle_s, now_s)]
        if not settled:
            self._waits_since_s = None
            return ''
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        # One sentence for what changes together, though one region may take longer to settle.
        if len(settled) < len(differing) and now_s - self._waits_since_s < 2 * self._settle_s:
            return ''
        if now_s - self._said_s < self.min_gap_s:
            return ''
        self._waits_since_s = None
        before = [(t, t.said, t.said_text) for t in settled]
        # Where nothing stays of what was said, telling what changed would tell twice as much.
        anew = things is self._scene or (
            not any(t.said is not None and not t.differs for t in things)
            and (any(said is not None for _, said, _ in before) or not self._saw_no_region))
        for thing in settled:
            thing.said, thing.said_text = thing.seen, thing.seen_text
        if anew and any(t.said is not None for t in things):
            text = self._describe(things, scene)
            # The words of two regions may be the same in all and have changed places.
            if text or things is self._scene or all(said is None for _, said, _ in before):
                return text
        self._described = frozenset()
        return _listed([_news_of(thing, said, text) for thing, said, text in before])

    def _describe(self, things: list[_Thing], scene: str) -> str:
        """Return what is there; nothing when that is what the last description said."""
        text = scene or _listed([t.said_text for t in things if t.said is not None])
        before, self._described = self._described, content_words(text)
        return text if before != self._described else ''

    def _is_silent_too_long(self, now_s: float) -> bool:
        return (self.max_silence_s > 0 and self.narrations > 0
                and now_s - self._said_s >= max(self.max_silence_s, self.min_gap_s))


def _news_of(thing: _Thing, said: Meaning | None, said_text: str) -> str:
    if thing.said is None:
        return gone(said_text)
    return appeared(thing.said_text) if said is None else f'now {thing.said_text}'


def _listed(texts: list[str]) -> str:
    """Join what is to be said, not more than a listener can take."""
    said, more = texts[:_MOST_THINGS_SAID], len(texts) - _MOST_THINGS_SAID
    return JOINER.join([*said, f'and {more} more'] if more > 0 else said)
