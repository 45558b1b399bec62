"""Those who write at the same time do not undo each other's work.

Controllers look at objects without holding the store's lock, so that what they write about may have
changed since.
"""

import pytest

from tests.fixtures.kubernetes.api import Api, Deletion
from tests.fixtures.kubernetes.errors import ApiError
from tests.fixtures.kubernetes.resources import NAMESPACES, RESOURCE_QUOTAS
from tests.fixtures.kubernetes.selectors import from_object
from tests.fixtures.kubernetes.store import Record, Store
from tests.functional.kubernetes.objects import NAMESPACE, Object

_RED = from_object({"matchLabels": {"color": "red"}})


@pytest.fixture
def api() -> Api:
    found = Api(Store())
    found.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    return found


def _create(api: Api) -> Record:
    quota: Object = {
        "metadata": {"name": "q", "namespace": NAMESPACE},
        "spec": {"hard": {"pods": "9"}},
    }
    return api.create(RESOURCE_QUOTAS, quota)[0]


def _mark(api: Api, record: Record, **metadata: object) -> Record:
    return api.update(record, {**record.object, "metadata": {**record.metadata, **metadata}})


def test_an_update_of_what_changed_is_refused(api: Api) -> None:
    before = _create(api)
    after = _mark(api, before, labels={"color": "red"})
    with pytest.raises(ApiError, match="the object has been modified"):
        _mark(api, before, labels={"color": "blue"})
    assert api.store.get(RESOURCE_QUOTAS, NAMESPACE, "q") is after


def test_a_status_is_written_beside_what_others_wrote(api: Api) -> None:
    before = _create(api)
    _mark(api, before, annotations={"a": "theirs"})
    after = api.write_status(before, {"hard": {"pods": "9"}}, {"b": "ours"})
    assert after.metadata["annotations"] == {"a": "theirs", "b": "ours"}
    assert after.object["status"] == {"hard": {"pods": "9"}}


def test_a_deletion_is_of_the_newest_version(api: Api) -> None:
    before = _create(api)
    after = _mark(api, before, labels={"color": "red"})
    with pytest.raises(ApiError, match="ResourceVersion in the precondition"):
        api.delete(after, Deletion(version=str(before.version)))
    last = api.delete(before)
    assert last.labels == {"color": "red"}
    assert api.store.select(RESOURCE_QUOTAS, NAMESPACE, _RED) == []


def test_what_is_gone_stays_so(api: Api) -> None:
    gone = _create(api)
    api.delete(gone)
    assert api.delete(gone) is gone
    assert api.write_status(gone, {}) is gone
    namesake = _create(api)
    api.delete(gone)
    assert api.store.get(RESOURCE_QUOTAS, NAMESPACE, "q") is namesake
