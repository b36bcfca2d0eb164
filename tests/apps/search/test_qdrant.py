"""A gallery in Qdrant's local mode beside the same one in memory."""

import http.server
import json
import shutil
import threading
from contextlib import closing

import pytest
import torch

from combiner import product
from src.apps.search import qdrant
from src.apps.search.changes import Changes
from src.apps.search.index import open_index
from src.apps.search.index_writing import updating
from src.apps.search.places import depends_on
from src.apps.search.qdrant import QdrantGallery, open_client, upload
from src.base.errors import InputError
from src.command.flags import RetrieverOptions
from src.retrieval.picture_folder import collect
from src.retrieval.retriever import load_retriever
from src.retrieval.searcher import Question, Searcher
from src.toy import write_small_clip
from tests.support.indexes import write_index

qdrant_client = pytest.importorskip("qdrant_client")


@pytest.fixture(scope="module")
def retriever(world):
    return load_retriever(RetrieverOptions(str(world / "small_clip.pt"), feature_cache=None))


@pytest.fixture
def pictures(world, tmp_path):
    """Copy the toy world's own pictures to a folder that a test may change, with a copy of one among them."""
    folder = tmp_path / "photos"
    shutil.copytree(world / "my_pictures", folder)
    (folder / "more").mkdir()
    shutil.copy(first(folder), folder / "more" / "copy.png")
    return folder


@pytest.fixture
def client(tmp_path):
    """Yield a client that keeps its collections in a folder, without a server."""
    with closing(qdrant_client.QdrantClient(path=str(tmp_path / "qdrant"))) as client:
        yield client


@pytest.fixture
def both(retriever, pictures, client):
    """Return searchers of one folder: in memory, and in Qdrant."""
    gallery, _ = collect(retriever, pictures)
    uploaded = upload(client, "pictures", gallery, depends_on(retriever))
    assert uploaded == Changes(len(gallery), 0, 0, 0)
    return Searcher(retriever, gallery), Searcher(retriever, QdrantGallery(client, depends_on(retriever), "pictures"))


def first(folder):
    return min(path for path in folder.rglob("*.png") if path.parent.name != "more")


def names(found):
    return [answer.name for answer in found]


def assert_alike(found, expected, rounding=2e-6):
    """Compare answers; those whose scores differ in rounding alone may change places."""
    assert [answer.score for answer in found] == pytest.approx([answer.score for answer in expected], abs=rounding)
    scores = {answer.name: answer.score for answer in expected}
    assert scores == pytest.approx({answer.name: answer.score for answer in found}, abs=rounding)
    assert {answer.path for answer in found} == {answer.path for answer in expected}


def test_answers_are_those_of_a_local_search(both, world):
    local, remote = both
    assert len(remote.gallery) == len(local.gallery)
    outside = next((world / "fashionIQ_dataset" / "images").glob("*.*"))
    everything = len(local.gallery)
    questions = [
        Question(reference, caption, without, weight, include)
        for reference in (*local.gallery.names[:6], first(local.gallery.folder), outside, None)
        for caption in ("in blue", "a long dress, striped", "")
        for without, weight, include in (("", 0.5, False), ("a belt", 0.3, True), ("red", 1.0, False))
        if reference or caption
    ]
    for found, expected in zip(
        remote.ask_all(questions, everything), local.ask_all(questions, everything), strict=True
    ):
        assert_alike(found, expected)


def test_reference_and_its_copies_are_no_answers(both):
    _, remote = both
    reference = first(remote.gallery.folder).relative_to(remote.gallery.folder).as_posix()
    everything = len(remote.gallery)
    left = names(remote.ask(Question(reference, "in blue"), everything))
    assert len(left) == everything - 2
    assert not {reference, "more/copy.png"} & set(left)
    assert len(remote.ask(Question(reference, "in blue", include_reference=True), everything)) == everything


def test_a_picture_from_elsewhere_leaves_out_its_copies(both, tmp_path):
    _, remote = both
    shutil.copy(first(remote.gallery.folder), tmp_path / "elsewhere.png")
    assert "more/copy.png" not in names(remote.ask(Question(tmp_path / "elsewhere.png"), 100))


def test_k_and_min_score(both):
    local, remote = both
    assert len(remote.ask(Question(caption="in blue"), 3)) == 3
    third = local.ask(Question(caption="in blue"), 3)[2].score
    assert len(remote.ask(Question(caption="in blue"), 100, min_score=third - 1e-6)) >= 3


def test_an_interrupted_upload_goes_on(retriever, pictures, client, monkeypatch):
    gallery, _ = collect(retriever, pictures)
    monkeypatch.setattr(qdrant, "POINTS_AT_ONCE", 4)
    send, sent = client.upsert, []

    def upsert(name, points, **options):
        if len(sent) == 3:  # what features depend on, and two batches
            raise KeyboardInterrupt
        sent.append(len(points))
        return send(name, points, **options)

    monkeypatch.setattr(client, "upsert", upsert)
    with pytest.raises(KeyboardInterrupt):
        upload(client, "pictures", gallery, depends_on(retriever))
    with pytest.raises(InputError, match="interrupted; upload the pictures again"):
        QdrantGallery(client, depends_on(retriever), "pictures")
    monkeypatch.setattr(client, "upsert", send)
    assert upload(client, "pictures", gallery, depends_on(retriever)) == Changes(len(gallery) - 8, 0, 8, 0)
    assert upload(client, "pictures", gallery, depends_on(retriever)) == Changes(0, 0, len(gallery), 0)
    assert len(QdrantGallery(client, depends_on(retriever), "pictures")) == len(gallery)


def test_a_changed_picture_is_replaced_and_a_deleted_one_removed(both, client):
    local, remote = both
    folder, settings = local.gallery.folder, depends_on(local.retriever)
    picture, other = sorted(path for path in folder.rglob("*.png") if path.parent.name != "more")[2:4]
    shutil.copy(other, picture)
    (folder / "more" / "copy.png").unlink()
    gallery, _ = collect(local.retriever, folder)
    assert upload(client, "pictures", gallery, settings) == Changes(0, 1, len(gallery) - 1, 1)
    same = [remote.gallery.feature(path.relative_to(folder).as_posix()) for path in (picture, other)]
    assert torch.allclose(*same)
    assert "more/copy.png" not in remote.gallery
    assert len(remote.gallery) == len(gallery)


def test_more_than_half_gone_is_meant_or_refused(both, client):
    local, remote = both
    whole, settings = local.gallery, depends_on(local.retriever)
    few = whole.part(whole.names[:3])
    with pytest.raises(InputError, match=r"15 of its 18 pictures are gone or cannot be read; .*--remove-missing"):
        upload(client, "pictures", few, settings)
    assert len(remote.gallery) == 18
    assert upload(client, "pictures", few, settings, remove_missing=True) == Changes(0, 0, 3, 15)
    assert len(remote.gallery) == 3


@pytest.mark.parametrize("value", [None, True, ["a"], {"a": 1}])
@pytest.mark.parametrize("key", ["name", "sha256", "length"])
def test_payloads_of_other_kinds_are_refused_and_sent_again(key, value, both, client):
    local, remote = both
    name, settings = local.gallery.names[0], depends_on(local.retriever)
    client.set_payload("pictures", {key: value}, points=[qdrant._id(name)])
    for ask in (lambda: remote.ask(Question(name)), lambda: remote.gallery.feature(name)):
        with pytest.raises(InputError, match="is not as it was uploaded; upload the pictures again"):
            ask()
    if key == "name":
        with pytest.raises(InputError, match="has no name; upload the pictures again"):
            remote.ask(Question(caption="red"), 100)
    assert upload(client, "pictures", local.gallery, settings) == Changes(0, 1, 17, 0)
    assert len(remote.ask(Question(name, include_reference=True), 100)) == 18


@pytest.mark.parametrize(
    "odd", [{"folder": 3}, {"depends_on": "{"}, {"depends_on": 3}, {"depends_on": "[1]"}, {"is_whole": "x"}]
)
def test_a_description_of_other_kinds_is_refused(odd, both, client):
    local, _ = both
    client.set_payload("pictures", odd, points=[qdrant._id("")])
    with pytest.raises(InputError, match="was not uploaded by this version; name another one"):
        QdrantGallery(client, depends_on(local.retriever), "pictures")


def test_an_index_is_uploaded_without_its_pictures(retriever, pictures, client, tmp_path):
    gallery, _ = collect(retriever, pictures)
    write_index(tmp_path / "index", gallery, depends_on(retriever), half=True)
    shutil.rmtree(pictures)
    index = open_index(tmp_path / "index", depends_on(retriever))
    assert upload(client, "pictures", index, depends_on(retriever)).added == len(index)
    assert upload(client, "pictures", index, depends_on(retriever)).kept == len(index)
    questions = [Question(name, "in blue") for name in index.names]
    remote = Searcher(retriever, QdrantGallery(client, depends_on(retriever), "pictures"))
    answers = remote.ask_all(questions, 100), Searcher(retriever, index).ask_all(questions, 100)
    for found, expected in zip(*answers, strict=True):
        # Qdrant normalises once more what fp16 has rounded.
        assert_alike(found, expected, rounding=2e-4)


def test_another_clip_is_refused(both, client, tmp_path):
    write_small_clip(tmp_path / "other.pt", seed=1)
    other = load_retriever(RetrieverOptions(str(tmp_path / "other.pt"), feature_cache=None))
    with pytest.raises(InputError, match="pictures of another CLIP or transform") as refused:
        QdrantGallery(client, depends_on(other), "pictures")
    assert "\n" not in str(refused.value)
    gallery, _ = collect(other, both[0].gallery.folder)
    with pytest.raises(InputError, match="pictures of another CLIP or transform"):
        upload(client, "pictures", gallery, depends_on(other))


def test_features_of_another_size_are_refused(both, client):
    _, remote = both
    feature = remote.gallery.feature(both[0].gallery.names[0])
    with pytest.raises(InputError, match="dimensions, the query's"):
        remote.gallery.answers(feature[None, :, :-1], 3, [None])


def test_a_product_is_refused(both):
    _, remote = both
    searcher = Searcher(remote.retriever.combining_by(product), remote.gallery)
    with pytest.raises(InputError, match="product cannot be asked of Qdrant"):
        searcher.ask(Question(both[0].gallery.names[0], "in blue"))


def test_what_is_not_ours_is_refused(client, retriever, pictures):
    from qdrant_client import models

    client.create_collection("theirs", models.VectorParams(size=8, distance=models.Distance.DOT))
    gallery, _ = collect(retriever, pictures)
    for ask in (
        lambda: QdrantGallery(client, depends_on(retriever), "theirs"),
        lambda: upload(client, "theirs", gallery, depends_on(retriever)),
    ):
        with pytest.raises(InputError, match="theirs: was not uploaded by this version"):
            ask()
    with pytest.raises(InputError, match="nowhere: there is none"):
        QdrantGallery(client, depends_on(retriever), "nowhere")
    with pytest.raises(InputError, match="not a name of a Qdrant collection"):
        QdrantGallery(client, depends_on(retriever), "a/b")


@pytest.mark.parametrize("url", ["http://", "ftp://host", "http://host:port", "http://127.0.0.1:9"])
def test_a_bad_url_is_one_line(url):
    with pytest.raises(InputError, match="not the address of a Qdrant server|no Qdrant server answers") as refused:
        open_client(url)
    assert str(refused.value).startswith(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "said"), [(401, "QDRANT_API_KEY"), (404, "404"), (200, "what answers is not a Qdrant server")]
)
def test_a_server_that_is_no_qdrant_or_refuses_is_one_line(status, said):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>\nhello")

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(InputError, match=said) as refused:
            open_client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "\n" not in str(refused.value)


def test_a_folder_of_the_local_mode_is_no_index(client, both, tmp_path):
    folder, line = tmp_path / "qdrant", r"meta.json: is that of Qdrant's local mode, .*; name a server by its URL"
    with pytest.raises(InputError, match=line):
        open_index(folder, {})
    with pytest.raises(InputError, match=line), updating(folder, {}):
        pass
    assert len(both[1].gallery) == 18


def test_several_processes_upload_and_one_asks(forks, world, pictures, tmp_path):
    """As torchrun starts them; answers are those of a local search."""
    options = ["--index", "http://server", "--collection", "mine", "--output-path", tmp_path, "--num-workers", "0"]
    in_place = {"qdrant": str(tmp_path / "server")}
    options += ["--clip-model-name", world / "small_clip.pt"]
    question = ["--caption", "in blue", "--reference", first(pictures).relative_to(pictures), "--json"]
    assert forks.run("search", ["--pictures", pictures, *options], processes=2, **in_place) == 0, forks.said()
    assert "18 pictures: 18 added, 0 changed, 0 kept, 0 removed" in forks.said()
    assert forks.run("search", [*question, tmp_path / "remote.json", *options], **in_place) == 0, forks.said()
    local = ["--pictures", pictures, *options[4:]]
    assert forks.run("search", [*question, tmp_path / "local.json", *local], processes=2) == 0, forks.said()
    found, expected = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("remote", "local"))
    assert [answer["name"] for answer in found[0]["answers"]] == [answer["name"] for answer in expected[0]["answers"]]
    assert forks.run("search", [*question, tmp_path / "x.json", *options], processes=2, **in_place) == 2
    # The first of both to fail says why.
    assert "ask its questions in a command of one process" in forks.said(0) + forks.said(1)


def test_without_qdrant_client_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "qdrant_client", None)
    with pytest.raises(InputError, match="pip install -r requirements/qdrant.txt"):
        open_client("http://localhost:6333")
