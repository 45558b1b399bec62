"""Which store a database has its packages in: the first program says it, the others compare."""

import pytest

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import stores

FOLDER = "/srv/packages"


def test_all_who_share_a_store_are_at_one(db: db_api.Database) -> None:
    db.write(stores.check, None, FOLDER, is_empty=True)
    db.write(stores.check, "one", FOLDER, is_empty=True)
    for marker in ("one", "one"):
        db.write(stores.check, marker, FOLDER, is_empty=False)


@pytest.mark.parametrize(("marker", "told"), [("other", "here is other"), (None, "here is none")])
def test_who_has_another_store_is_told_both_markers_and_the_way_out(
    db: db_api.Database, marker: str | None, told: str
) -> None:
    db.write(stores.check, "one", FOLDER, is_empty=True)
    with pytest.raises(
        exceptions.StartupError, match=rf"\[storage\] directory {FOLDER}: "
    ) as caught:
        db.write(stores.check, marker, FOLDER, is_empty=False)
    for words in ("is one, and", told, "file id"):
        assert words in str(caught.value)
    db.write(stores.check, "one", FOLDER, is_empty=False)
