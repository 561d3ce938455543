"""The Hub's HTTP API on loopback, as far as pushing and loading models need it: repositories live in memory."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """A server that runs in a thread: `with Hub() as hub: hub.url`.

    `fail(pattern, status)` answers with a status wherever "METHOD path" matches, `cut(pattern)` breaks the connection
    in the middle of what the client sends; both for the next `times` requests. `heal()` ends it.
    """

    def __init__(self):
        self.repos = {}  # name -> {"private": bool, "files": {path: bytes}, "commits": [{"sha", "files", "deleted"}]}
        self.objects = {}  # sha256 -> bytes: what was uploaded for a commit
        self.requests = []
        self.failures = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fail(self, pattern, status, times=10**9):
        self.failures.append([re.compile(pattern), status, times])

    def cut(self, pattern, times=10**9):
        self.fail(pattern, "cut", times)

    def heal(self):
        self.failures.clear()

    def failure_for(self, request):
        """The status to answer a request with, "cut", or None."""
        with self.lock:
            self.requests.append(request)
            for failure in self.failures:
                if failure[2] > 0 and failure[0].search(request):
                    failure[2] -= 1
                    return failure[1]

    def files(self, repo):
        return self.repos[repo]["files"]

    def commit(self, repo, lines):
        """Applies a commit, all of it or nothing; returns its id, or None if its parent is not the last one."""
        with self.lock:
            found = self.repos[repo]
            header = next(line["value"] for line in lines if line["key"] == "header")
            if header.get("parentCommit") not in (None, found["commits"][-1]["sha"]):
                return None
            files, deleted = dict(found["files"]), []
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                    deleted.append(value["path"])
            found["files"] = files
            sha = hashlib.sha1(f"{repo}{len(found['commits'])}".encode()).hexdigest()
            found["commits"].append({"sha": sha, "files": files, "deleted": deleted})
            return sha


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_GET

    def handle_request(self):
        path = unquote(urlsplit(self.path).path)
        failure = self.hub.failure_for(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        if failure == "cut":
            self.rfile.read(length // 2)
            self.connection.close()
            self.close_connection = True
            return
        body = self.rfile.read(length) if length else self.read_chunks()
        if failure:
            return self.answer({"error": f"told to answer {failure}"}, failure)
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if self.command in method and match:
                return action(self, body, **match.groupdict())
        self.answer({"error": f"no route {self.command} {path}"}, 404)

    def read_chunks(self):
        """The body of a request in chunks, which is how files are uploaded."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, content, status=200, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": len(body), **dict(headers)}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def allowed(self, repo=None):
        """Whether the request has the token, and the repository is there; answers itself if not."""
        if self.headers.get("Authorization") != "Bearer hf_fake":
            self.answer({"error": "Invalid credentials"}, 401)
        elif repo is not None and repo not in self.hub.repos:
            self.answer({"error": "no such repository"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            return True

    def create(self, body):
        if not self.allowed():
            return
        request = json.loads(body)
        name = f"{request['organization'] or 'user'}/{request['name']}"
        status = 409 if name in self.hub.repos else 200
        first = {"sha": hashlib.sha1(name.encode()).hexdigest(), "files": {}, "deleted": []}
        private = request.get("visibility") == "private"
        self.hub.repos.setdefault(name, {"private": private, "files": {}, "commits": [first]})
        self.answer({"url": f"{self.hub.url}/{name}", "name": name}, status)

    def info(self, body, repo, revision=None):
        if self.allowed(repo):
            found = self.hub.repos[repo]
            files = [{"rfilename": path} for path in found["files"]]
            facts = {"id": repo, "modelId": repo, "private": found["private"], "siblings": files}
            self.answer({**facts, "sha": found["commits"][-1]["sha"], "tags": [], "downloads": 0})

    def tree(self, body, repo, revision):
        if self.allowed(repo):
            rows = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in self.hub.files(repo).items()
            ]
            self.answer(rows)

    def validate_yaml(self, body):
        self.answer({"warnings": [], "errors": []})

    def preupload(self, body, repo, revision):
        if not self.allowed(repo):
            return
        rows = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith((".safetensors", ".bin", ".png"))
            row = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            there = self.hub.files(repo).get(file["path"])
            if there is not None:  # the client leaves out what has not changed
                blob = hashlib.sha1(b"blob %d\0" % len(there) + there)
                row["oid"] = (hashlib.sha256(there) if large else blob).hexdigest()
            rows.append(row)
        self.answer({"files": rows})

    def lfs_batch(self, body, repo):
        if not self.allowed(repo):
            return
        rows = []
        for item in json.loads(body)["objects"]:
            row = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:  # what is there already need not be sent again
                row["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            rows.append(row)
        self.answer({"transfer": "basic", "objects": rows})

    def lfs_put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return self.answer({"error": "half a file"}, 400)
        self.hub.objects[oid] = body
        self.answer({})

    def commit(self, body, repo, revision):
        if self.allowed(repo):
            sha = self.hub.commit(repo, [json.loads(line) for line in body.splitlines()])
            if sha is None:
                return self.answer({"error": "A commit has happened since. Please refresh and try again."}, 412)
            self.answer({"commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "commitOid": sha})

    def resolve(self, body, repo, revision, path):
        commits = self.hub.repos.get(repo, {"commits": [None]})["commits"]
        found = next((commit for commit in commits[1:] if commit["sha"] == revision), commits[-1])
        if found is None or path not in found["files"]:
            code = "EntryNotFound" if found else "RepoNotFound"
            return self.answer({"error": code}, 404, {"X-Error-Code": code})
        content = found["files"][path]
        headers = {"X-Repo-Commit": found["sha"], "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self.answer(content, 200, {**headers, "Content-Type": "application/octet-stream"})


REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", Handler.lfs_put),
    ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)", Handler.tree),
    ("GET", rf"/api/models/{REPO}(/revision/(?P<revision>[^/]+))?", Handler.info),
    ("GETHEAD", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]
