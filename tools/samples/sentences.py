"""Sentences from frames and words of ten topics, for a MiniLM sentence encoder.

The encoder's package has no vocabulary. The word numbers below are those of bert-base-uncased,
which it was trained with.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from samples import Array, Case, Run, Sizes

SEED: Final = 2109
EMBEDDING: Final = "461"
START: Final = 101
END: Final = 102
STOP: Final = 1012
TOPICS: Final = (
    "guitar 2858 piano 3682 violin 6710 song 2299 melody 8531 "
    "concert 4164 singer 3220 drum 6943 band 2316 orchestra 4032",
    "bread 7852 cheese 8808 soup 11350 kitchen 3829 recipe 17974 "
    "butter 12136 dinner 4596 fruit 5909 salad 16521 chef 10026",
    "football 2374 match 2674 goal 3125 player 2447 coach 2873 "
    "team 2136 tennis 5093 race 2679 score 3556 stadium 3346",
    "doctor 3460 hospital 2902 patient 5776 medicine 4200 nurse 6821 "
    "disease 4295 surgery 5970 fever 9016 clinic 9349 pain 3255",
    "bank 2924 loan 5414 market 3006 price 3976 tax 4171 "
    "profit 5618 company 2194 trade 3119 currency 9598 budget 5166",
    "planet 4774 moon 4231 rocket 7596 star 2732 orbit 8753 "
    "galaxy 9088 telescope 12772 sun 3103 comet 15699 astronaut 19748",
    "dog 3899 cat 4937 horse 3586 bird 4743 fish 3869 "
    "wolf 4702 bear 4562 rabbit 10442 elephant 10777 lion 7006",
    "rain 4542 snow 4586 storm 4040 wind 3612 cloud 6112 "
    "thunder 8505 sunny 11559 winter 3467 fog 9666 temperature 4860",
    "airport 3199 hotel 3309 flight 3462 passport 12293 tourist 7538 "
    "train 3345 luggage 17434 journey 4990 map 4949 ticket 7281",
    "court 2457 judge 3648 lawyer 5160 crime 4126 police 2610 "
    "prison 3827 trial 3979 witness 7409 jury 6467 sentence 6251",
)
# "we talked about the old _ and the _", "they saw a _ near the new _", "i heard of the _ with a
# very good _", "the _ was good after the _"; 0 stands for a word of the topic.
FRAMES: Final = (
    (2057, 5720, 2055, 1996, 2214, 0, 1998, 1996, 0),
    (2027, 2387, 1037, 0, 2379, 1996, 2047, 0),
    (1045, 2657, 1997, 1996, 0, 2007, 1037, 2200, 2204, 0),
    (1996, 0, 2001, 2204, 2044, 1996, 0),
)


def topics(_model: Path, sizes: Sizes) -> Case:
    """Return sentences; the score is the share whose nearest sentence is of the same topic.

    Questions and answers use different words, so a word in common cannot give the topic away.
    """
    count = min(200, sizes.test)
    calibration = _sentences(sizes.calibration, range(10), SEED)[0]
    questions, topics_asked = _sentences(count, range(5), SEED + 1)
    answers, topics_there = _sentences(6 * len(TOPICS), range(5, 10), SEED + 2)

    def judge(_dense: Run, pruned: Run) -> float:
        asked, there = (
            np.concatenate([pruned(feed)[EMBEDDING] for feed in part])
            for part in (questions, answers)
        )
        there = there / np.linalg.norm(there, axis=1, keepdims=True)
        nearest = (asked @ there.T).argmax(axis=1)
        return 100.0 * float(np.mean(topics_there[nearest] == topics_asked))

    return Case(
        calibration=calibration,
        test=[*questions, *answers],
        data=f"{len(calibration)} + {count + len(answers)} sentences of ten topics",
        metric="cosine",
        output=EMBEDDING,
        judge=judge,
        score="nearest sentence of 60 is of the same topic",
    )


def _sentences(count: int, words: range, seed: int) -> tuple[list[dict[str, Array]], Array]:
    """Return sentences as complete feeds, and the topic of each."""
    generator = np.random.default_rng(seed)
    numbers = [[int(number) for number in re.findall(r"\d+", topic)] for topic in TOPICS]
    chosen = np.arange(count) % len(TOPICS)
    feeds = []
    for topic in chosen:
        frame = FRAMES[int(generator.integers(len(FRAMES)))]
        drawn = iter(generator.choice(words, frame.count(0), replace=False))
        body = [token or numbers[topic][next(drawn)] for token in frame]
        ids = np.array([[START, *body, STOP, END]], dtype=np.int64)
        feeds.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return feeds, chosen
