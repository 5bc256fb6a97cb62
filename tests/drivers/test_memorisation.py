"""Copies of the database are found among samples, and held-out data says how near others come."""

import json

import numpy as np
import pytest
import torch
from optional import needs
from retrieval_cases import database

from diffusion_engine.drivers.index import Index
from diffusion_engine.drivers.memorisation import memorisation

needs("faiss")

WIDTH = 12
DATA = database(0, 400, WIDTH)
SAMPLES = np.concatenate([database(1, 37, WIDTH), DATA[[5, 200]] + 1e-3, DATA[[9]]])
COPIES = [37, 38, 39]
L2 = Index(DATA, metric="l2", normalise=False)


def by_hand(queries, data):
    apart = np.sqrt(((queries[:, None].astype(float) - data[None].astype(float)) ** 2).sum(-1))
    return np.sort(apart, axis=1), np.argsort(apart, axis=1, kind="stable")


def test_distances_are_those_to_the_nearest():
    found = memorisation(SAMPLES, L2, k=4).samples
    apart, order = by_hand(SAMPLES, DATA)
    assert found.distances.numpy() == pytest.approx(apart[:, :4], rel=1e-12)
    assert found.indices.tolist() == order[:, :4].tolist()
    ratio = apart[:, 0] / apart[:, 1]
    assert found.ratio.numpy() == pytest.approx(ratio, rel=1e-12)


def test_directions_are_compared_where_the_index_compares_them():
    index = Index(DATA)
    found = memorisation(3.0 * SAMPLES, index, k=2).samples
    units = [v / np.linalg.norm(v.astype(float), axis=1, keepdims=True) for v in (SAMPLES, DATA)]
    apart, order = by_hand(*units)
    assert found.indices.tolist() == order[:, :2].tolist()
    assert found.distances.numpy() == pytest.approx(apart[:, :2], abs=1e-6)  # of float32 embeddings


def test_copies_are_memorised_and_others_are_not():
    report = memorisation(SAMPLES, L2)
    assert report.memorised().nonzero()[:, 0].tolist() == COPIES
    made = report.to_dict()["samples"]
    assert made["below_ratio"] == 3 / 40 and made["below_threshold"] is None
    assert report.to_dict()["held_out"] is None


def test_a_copy_of_what_is_there_twice_is_one():
    twice = Index(np.concatenate([DATA, DATA]), metric="l2", normalise=False)
    assert memorisation(DATA[:3], twice).memorised().all()


def test_held_out_data_gives_the_threshold():
    held_out = database(2, 200, WIDTH)
    report = memorisation(torch.from_numpy(SAMPLES), L2, held_out=held_out)
    nearest = by_hand(held_out, DATA)[0][:, 0]
    assert report.threshold == pytest.approx(np.quantile(nearest, 0.05), rel=1e-12)
    made = report.to_dict()
    assert made["held_out"]["below_threshold"] == 0.05 and made["held_out"]["below_ratio"] == 0.0
    assert made["held_out"]["distance"]["median"] == pytest.approx(np.median(nearest), rel=1e-12)
    assert made["samples"]["below_threshold"] >= 3 / 40
    given = memorisation(SAMPLES, L2, threshold=0.1).to_dict()
    assert given["samples"]["below_threshold"] == 3 / 40


def test_the_report_is_text_and_json():
    report = memorisation(SAMPLES, L2, lambda v: v, held_out=database(2, 200, WIDTH))
    text = str(report)
    assert text.startswith("40 samples beside 400 embeddings of width 12\n")
    assert "d1 / d2 below 0.3333: 7.5% of samples, 0.0% of held-out" in text
    assert text.endswith("nearest by d1 / d2: " + text.rpartition("d1 / d2: ")[2])
    assert "sample 39 to 9 (0)" in text and len(text.splitlines()) == 9
    assert json.loads(report.to_json()) == report.to_dict()


BAD = {
    "k": (lambda: memorisation(SAMPLES, L2, k=1), "k=1: the ratio takes 2 neighbours or more"),
    "empty": (lambda: memorisation(SAMPLES[:0], L2), "samples is empty"),
    "held out": (lambda: memorisation(SAMPLES, L2, held_out=SAMPLES[:0]), "held_out is empty"),
    "width": (lambda: memorisation(np.eye(3), L2), "queries are 3 wide and the index's embeddings 12"),
    "lengths": (lambda: memorisation(SAMPLES, Index(DATA, normalise=False)), "index with metric='l2'"),
    "ratio": (lambda: memorisation(SAMPLES, L2, ratio="small"), "ratio='small': give a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case):
    make, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        make()
