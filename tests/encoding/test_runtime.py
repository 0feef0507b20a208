from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from niruhybrid.encoding.model_config import read_config
from niruhybrid.encoding.packing import Feed, Row, Run, lay_out

MakeModel = Callable[..., Path]


def whole(text: list[int]) -> Row:
    return Row(text, (0, len(text)))


def feed_of(*texts: list[int]) -> Feed:
    width = max(len(text) for text in texts)
    return lay_out(Run(tuple((text,) for text in range(len(texts))), width), [whole(text) for text in texts], "mean")


def test_vectors_are_the_callers_own(make_model: MakeModel) -> None:
    from niruhybrid.encoding.runtime import Runtime

    folder = make_model()
    runtime = Runtime(folder, read_config(folder))
    first = runtime.run(feed_of([2, 9, 3], [2, 11, 12, 3]))
    kept = first.copy()
    second = runtime.run(feed_of([2, 30, 3], [2, 44, 21, 3]))
    np.testing.assert_array_equal(first, kept)
    assert np.abs(first - second).max() > 0.01
    assert runtime.precision in {"bf16", "f32"}


def test_empty_slots_do_not_matter(make_model: MakeModel) -> None:
    from niruhybrid.encoding.runtime import Runtime

    folder = make_model()
    runtime = Runtime(folder, read_config(folder))
    tight, roomy = (runtime.run(lay_out(Run(((0,),), width), [whole([2, 9, 3])], "mean")) for width in (3, 40))
    assert (tight @ roomy.T).item() == pytest.approx(1.0, abs=1e-3)
