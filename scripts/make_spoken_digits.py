"""Make ``spoken_digits.npz``: features of the ten digits, spoken by espeak-ng.

    python scripts/make_spoken_digits.py rskernels/experiments/multimodal/spoken_digits.npz

Nobody was recorded: all of it is synthetic. eSpeak NG is under GPL-3.0-or-later, which covers the
program and its data; what it says is no derived work of either, and no audio is kept, only numbers
computed from it. The same release of eSpeak NG and zlib gives the same bytes.

A row is a digit said once by one speaker, a voice variant of eSpeak NG, with an accent, a speed and
a pitch. Its features: frames of 512 samples at 22,050 Hz, 128 apart, under a Hann window; of each
the power spectrum |X_f|², and of that the energy of 12 triangular bands, equally wide in
mel(f) = 2595·log₁₀(1 + f/700) from 100 Hz to 8 kHz and half overlapping (Davis & Mermelstein,
"Comparison of parametric representations for monosyllabic word recognition", 1980). Frames before
the first and after the last within 40 dB of the loudest are left out, and the others averaged in 16
stretches of equal length, so that the speed of a speaker shows less. Then decibels below the
largest number of the row, cut off at 60 and stored as round(255·(1 + dB/60)).
"""

import io
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = (
    *("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    *("Alicia", "Andrea", "Annie", "anika", "antonio", "aunty", "belinda", "benjamin"),
    *("boris", "croak", "david", "ed", "grandma", "grandpa", "klatt", "linda", "steph"),
)
# The ones that take a variant; "en-gb" does not.
ACCENTS = ("en-us", "en-029", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
SPEEDS = (110, 130, 150, 170, 190, 210)  # words a minute
PITCHES = (25, 35, 45, 55, 65, 75)  # of 0 to 99

RATE, WINDOW, HOP = 22_050, 512, 128  # Hz, samples, samples
BANDS, STRETCHES = 12, 16
LOWEST, HIGHEST = 100.0, 8000.0  # Hz
AUDIBLE, FLOOR = 40.0, 60.0  # dB below the loudest


def say(word: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """Return what espeak-ng says, float64 ``[samples]`` in [-1, 1), at 22,050 Hz."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    spoken = subprocess.run(command, check=True, capture_output=True)
    if spoken.stderr:
        raise RuntimeError(f"{' '.join(command)}: {spoken.stderr.decode()}")
    # A stream's header cannot say how long it is: the samples are what follows it.
    with wave.open(io.BytesIO(spoken.stdout)) as header:
        form = header.getframerate(), header.getnchannels(), header.getsampwidth()
    if form != (RATE, 1, 2):
        raise RuntimeError(f"espeak-ng gave rate, channels and width {form}")
    start = spoken.stdout.index(b"data") + 8
    return np.frombuffer(spoken.stdout[start:], "<i2") / 2.0**15


def mel_filters() -> np.ndarray:
    """Return the weight of each frequency in each band, ``[WINDOW // 2 + 1, BANDS]``."""
    mel = 2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    edges = 700 * (10 ** (np.linspace(*mel, BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequency - left) / (middle - left), (right - frequency) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(samples: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Return the features of a word, uint8 ``[BANDS, STRETCHES]``."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * np.hanning(WINDOW))
    energy = (spectrum.real**2 + spectrum.imag**2) @ filters  # [frames, BANDS]
    loudness = energy.sum(axis=1)
    (audible,) = np.nonzero(loudness > loudness.max() * 10 ** (-AUDIBLE / 10))
    word = energy[audible[0] : audible[-1] + 1]
    if len(word) < STRETCHES:
        raise RuntimeError(f"{len(word)} frames are fewer than {STRETCHES} stretches")
    bounds = np.arange(STRETCHES) * len(word) // STRETCHES
    lengths = np.diff(np.append(bounds, len(word)))
    mean = np.add.reduceat(word, bounds) / lengths[:, None]
    decibels = 10 * np.log10(np.maximum(mean / mean.max(), 10 ** (-FLOOR / 10)))
    return np.round(255 * (1 + decibels / FLOOR)).astype(np.uint8).T


def main() -> None:
    """Write the file named on the command line."""
    (out,) = map(Path, sys.argv[1:])
    version = subprocess.run(
        ["espeak-ng", "--version"],
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    ).stdout.split("Data at")[0]
    filters = mel_filters()
    features, labels, speakers = [], [], []
    for speaker, variant in enumerate(SPEAKERS):
        for turn, accent in enumerate(ACCENTS):
            speed = SPEEDS[(speaker + 5 * turn) % len(SPEEDS)]
            pitch = PITCHES[(speaker // 6 + turn) % len(PITCHES)]
            for label, word in enumerate(WORDS):
                features.append(log_mel(say(word, f"{accent}+{variant}", speed, pitch), filters))
                labels.append(label)
                speakers.append(speaker)
    if len(np.unique(np.stack(features), axis=0)) < len(features):
        raise RuntimeError("two rows are the same: a voice is not what it is named")
    np.savez_compressed(
        out,
        features=np.stack(features),
        labels=np.array(labels, np.uint8),
        speakers=np.array(speakers, np.uint8),
        names=np.array(SPEAKERS),
        made_by=np.array(version.strip()),
    )


if __name__ == "__main__":
    main()
