"""Synthetic sound: tones for basic-pitch, and vowels among noise for silero-vad."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from onnx_relief.graph.document import load
from onnx_relief.runtime import Session, open_session
from samples import Array, Case, Run, Sizes

SEED: Final = 2109
# basic-pitch 0.4.0, constants.py: sample rate, window length, and the lowest of its 88 keys (A0).
PITCH_RATE: Final = 22050
PITCH_SAMPLES: Final = 2 * PITCH_RATE - 256
LOWEST_KEY: Final = 21
KEYS: Final = range(40, 85)
PITCH_INPUT: Final = "serving_default_input_2:0"
PITCH_NOTES: Final = "StatefulPartitionedCall:1"
# First three formants in Hz of a, e, i, o, u (Peterson and Barney 1952, table II, men).
FORMANTS: Final = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (270, 2290, 3010),
    (570, 840, 2410),
    (300, 870, 2240),
)


def pitches(_model: Path, sizes: Sizes) -> Case:
    """Return tones for basic-pitch; the score is the share of tones whose key is found."""
    calibration, test = min(48, 2 * sizes.dear_calibration), min(96, 2 * sizes.dear_test)
    keys = np.random.default_rng(SEED).choice(KEYS, calibration + test)
    tones = np.stack([_tone(int(key), number) for number, key in enumerate(keys)])
    heard, expected = tones[calibration:], keys[calibration:]

    def judge(_dense: Run, pruned: Run) -> float:
        found: list[int] = []
        for start in range(0, test, 8):
            notes = pruned({PITCH_INPUT: heard[start : start + 8]})[PITCH_NOTES]
            found += (notes.mean(axis=1).argmax(axis=1) + LOWEST_KEY).tolist()
        return 100.0 * float(np.mean(np.array(found) == expected))

    return Case(
        calibration={PITCH_INPUT: tones[:calibration]},
        test={PITCH_INPUT: heard},
        data=f"{calibration} + {test} synthetic tones",
        batch_size=8,
        metric="cosine",
        output=PITCH_NOTES,
        judge=judge,
        score="keys found",
    )


def voice(model: Path, sizes: Sizes) -> Case:
    """Return steps of streams for silero-vad: whole feeds with the state of the dense model.

    The model sees 64 samples of the step before and 512 new ones at 16 kHz, half of that at 8 kHz
    (silero-vad 6.2.3, `OnnxWrapper`).
    """
    session = open_session(load(model), provider="cpu")
    rates = (16000,) if "16k" in model.stem else (16000, 8000)
    steps = 400 if sizes.test >= 1000 else 20
    feeds: list[list[dict[str, Array]]] = [[], []]
    for rate in rates:
        for part, seed in ((0, SEED), (1, SEED + 1)):
            stream = _babble(rate, seconds=steps * 512 / 16000 / len(rates), seed=seed)
            feeds[part] += _stream_feeds(session, stream, rate)
    return Case(
        calibration=feeds[0],
        test=feeds[1],
        data=f"{len(feeds[0])} + {len(feeds[1])} steps of synthetic vowels among noise",
        output="output",
        score="speech or not as dense",
    )


def _tone(key: int, number: int) -> Array:
    """Return a plucked tone with overtones and a little noise, float32 (PITCH_SAMPLES, 1)."""
    generator = np.random.default_rng([SEED, number])
    time = np.arange(PITCH_SAMPLES) / PITCH_RATE
    frequency = 440.0 * 2 ** ((key - 69) / 12)
    strengths = generator.uniform(0.3, 1.0, 6) / np.arange(1, 7)
    wave = sum(
        strength * np.sin(2 * np.pi * frequency * (order + 1) * time)
        for order, strength in enumerate(strengths)
    )
    onset = generator.uniform(0.1, 0.5)
    envelope = np.where(time < onset, 0.0, np.exp(-(time - onset) * generator.uniform(0.5, 2.0)))
    noisy = 0.3 * wave * envelope + generator.normal(0, 0.003, PITCH_SAMPLES)
    return np.asarray(noisy, dtype=np.float32)[:, None]


def _babble(rate: int, *, seconds: float, seed: int) -> Array:
    """Return stretches of silence, noise, tones and vowels with a moving pitch, float32."""
    generator = np.random.default_rng([seed, rate])
    parts: list[Array] = []
    while sum(map(len, parts)) < seconds * rate:
        time = np.arange(int(generator.uniform(0.15, 0.6) * rate)) / rate
        kind = generator.integers(6)
        if kind == 0:
            parts.append(np.zeros(len(time)))
        elif kind == 1:
            parts.append(generator.normal(0, generator.uniform(0.01, 0.2), len(time)))
        elif kind == 2:
            parts.append(0.2 * np.sin(2 * np.pi * generator.uniform(200, 3000) * time))
        else:
            parts += [_vowel(generator, time, rate) for _ in range(2)]
    stream = np.concatenate(parts)
    return np.asarray(stream + generator.normal(0, 0.003, len(stream)), dtype=np.float32)


def _vowel(generator: np.random.Generator, time: Array, rate: int) -> Array:
    """Return harmonics of a gliding voice, each as loud as the formants of a vowel let it be."""
    start, end = generator.uniform(90, 220, 2)
    phase = 2 * np.pi * np.cumsum(np.linspace(start, end, len(time))) / rate
    formants = FORMANTS[int(generator.integers(len(FORMANTS)))]
    wave = np.zeros(len(time))
    for order in range(1, int(0.45 * rate / max(start, end))):
        frequency = order * (start + end) / 2
        gain = sum(1 / (1 + ((frequency - formant) / 90) ** 2) for formant in formants)
        wave += gain / order**0.5 * np.sin(order * phase)
    loud = 0.4 * wave / np.abs(wave).max()
    return np.asarray(loud * np.hanning(len(time)) ** 0.3)


def _stream_feeds(session: Session, stream: Array, rate: int) -> list[dict[str, Array]]:
    """Return a feed for every step of a stream, with the state that the model itself made."""
    length, context = (512, 64) if rate == 16000 else (256, 32)
    state = np.zeros((2, 1, 128), dtype=np.float32)
    padded = np.concatenate([np.zeros(context, np.float32), stream])
    feeds = []
    for start in range(0, len(stream) - length, length):
        window = padded[start : start + context + length][None]
        feed = {"input": window, "state": state, "sr": np.array(rate)}
        state = session.run(feed, ["stateN"])["stateN"]
        feeds.append(feed)
    return feeds
