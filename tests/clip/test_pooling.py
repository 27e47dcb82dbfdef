"""The feature of a class with several names, against plain numpy."""

import numpy as np
import torch

from daptune.clip.pooling import pool_names


def test_one_name_each_needs_no_pool() -> None:
    assert pool_names(["cat", ("dog",), ["sea lake"]]) == (["cat", "dog", "sea lake"], None)


def test_features_of_names_become_those_of_classes() -> None:
    names, pool = pool_names([("a", "b", "c"), "d", ("e", "f")])
    assert names == list("abcdef") and pool is not None and pool.owners.tolist() == [0, 0, 0, 1, 2, 2]
    features = (
        torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(3)) * torch.tensor([1, 9, 2, 3, 4, 0.5])[:, None]
    )
    found = pool(features).numpy()
    for n, rows in enumerate(features.numpy().astype(float)):
        for c, own in enumerate(([0, 1, 2], [3], [4, 5])):
            mean = np.mean([rows[k] / np.linalg.norm(rows[k]) for k in own], axis=0)
            length = np.mean([np.linalg.norm(rows[k]) for k in own])
            np.testing.assert_allclose(found[n, c], mean / np.linalg.norm(mean) * length, rtol=1e-5, atol=1e-6)
