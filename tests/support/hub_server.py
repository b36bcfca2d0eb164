"""A server on this machine in the place of Hugging Face's hub, as far as its own client asks it."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "c0ff"
TOKEN = "hf_secret"


class Handler(BaseHTTPRequestHandler):
    """Repositories are `self.server.repositories` {name: {file: bytes}}; some are private, or gated."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer_file(is_wanted=False)

    def do_GET(self):
        if self.path.startswith("/api/models/"):
            repository = "/".join(self.path.split("?")[0].split("/")[3:5])
            files = self.files_of(repository)
            if files is not None:
                tree = [{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in files]
                siblings = [{"rfilename": name} for name in files]
                info = {"id": repository, "sha": COMMIT, "siblings": siblings}
                self.answer_json(tree if "/tree/" in self.path else info)
        elif "/resolve/" in self.path:
            self.answer_file(is_wanted=True)
        else:
            self.refuse(404, "EntryNotFound")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.read_chunks()
        self.server.asked.append(self.path)
        where = self.path.split("?")[0].split("/")
        repository = "/".join(where[3:5])
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self.answer_json({"url": f"{self.server.address}/{name}", "name": name, "id": "1"})
        elif "preupload" in where:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer_json({"files": files})
        elif "commit" in where:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[repository][line["value"]["path"]] = content
            address = f"{self.server.address}/{repository}/commit/{COMMIT}"
            self.answer_json({"success": True, "commitUrl": address, "commitOid": COMMIT, "hookOutput": ""})
        else:
            self.answer_json({"errors": [], "warnings": []})

    def files_of(self, repository):
        """Return the files of a repository; answer with an error, and return None, where it may not be read."""
        is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository in self.server.gated and not is_known:
            return self.refuse(403, "GatedRepo")
        if repository not in self.server.repositories or (repository in self.server.private and not is_known):
            return self.refuse(401, "RepoNotFound")
        return self.server.repositories[repository]

    def answer_file(self, is_wanted):
        self.server.asked.append(self.path)
        _, owner, name, _, _, file = unquote(self.path.split("?")[0]).split("/", 5)
        files = self.files_of(f"{owner}/{name}")
        if files is None:
            return
        content = files.get(file)
        if content is None:
            self.refuse(404, "EntryNotFound")
            return
        self.send_response(200)
        for header, value in {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Content-Length": str(len(content)),
        }.items():
            self.send_header(header, value)
        self.end_headers()
        if is_wanted:
            self.wfile.write(content)

    def answer_json(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def read_chunks(self):
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def hub():
    """Serve until the block ends; yield the server, whose `address` the client has to be told."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.repositories, server.private, server.gated, server.asked = {}, set(), set(), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
