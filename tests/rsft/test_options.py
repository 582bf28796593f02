"""Options: what is usual, what is accepted, and who reads them."""

from dataclasses import dataclass

import pytest

from rskernels.rsft.options import Options, one_of, option, whole


@dataclass(frozen=True, kw_only=True)
class Drink(Options):
    kind: str = option("tea", "What it is.", "Drink", accepted=one_of(("tea", "water")))
    minutes: int | None = option(
        4, "How long it draws.", "Tea", accepted=whole(1, 10), read_by=("kind", ("tea",))
    )
    milk: bool = option(False, "With milk.", "Tea", read_by=("kind", ("tea",)))
    degrees: int = option(20, "How warm it is.", "Drink", accepted=whole(0, 100))


def test_what_is_read_and_not_given_has_its_usual_value():
    assert Drink() == Drink(kind="tea", minutes=4, milk=False, degrees=20)
    assert Drink(kind="water").minutes is None
    assert Drink(minutes=7, milk=True).minutes == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "beer"}, "kind='beer': accepted are tea, water"),
        ({"minutes": 11}, "minutes=11: accepted is 1 to 10"),
        ({"degrees": -1}, "degrees=-1: accepted is 0 to 100"),
        (
            {"kind": "water", "minutes": 4},
            "minutes=4: only kind tea reads it, got kind='water'",
        ),
        ({"kind": "water", "milk": True}, "milk=True: only kind tea reads it, got kind='water'"),
    ],
)
def test_what_is_not_accepted_or_not_read_is_refused(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Drink(**values)
