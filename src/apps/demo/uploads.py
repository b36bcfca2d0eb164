"""Pictures that browsers upload: each is tried as it comes, and the newest ones are kept."""

import asyncio
import secrets
import shutil
from pathlib import Path

from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from src.apps.demo import cards
from src.base.errors import InputError, in_a_line, one_line, shown

LARGEST = 64 * 2**20
"""Bytes of an upload."""
MOST = 4 * LARGEST
"""Bytes of all that are kept or arriving."""
AROUND = 2**14
"""Bytes that a form may have beside its file."""
REMEMBERED = 100
"""Refused uploads whose fault is still known, to be shown on the page."""


class Uploads:
    """Uploaded pictures in a folder. Requests are answered in one thread; the pictures are asked for in any."""

    def __init__(self, folder: Path, most: int = MOST):
        self.folder, self.most = folder, most
        self._sizes: dict[str, int] = {}
        """{path: bytes} of the pictures kept, the oldest first."""
        self._faults: dict[str, str] = {}
        """{path: why it was refused}"""
        self._arriving = 0
        # What is decoded at a time fits into memory.
        self._one_by_one = asyncio.Lock()

    def picture(self, path: str) -> Path:
        """Return the file of an upload; raises InputError for one that was refused, or is not kept any more."""
        if path in self._faults:
            raise InputError(self._faults[path])
        if path not in self._sizes:
            raise InputError("the uploaded picture is not kept any more; upload it again")
        return Path(path)

    async def __call__(self, scope, receive, send) -> None:
        """Answer a request that uploads a file, with its path as JSON; nothing stays of one that is cut off."""
        arrived = 0

        async def counted():
            nonlocal arrived
            message = await receive()
            size = len(message.get("body", b""))
            arrived, self._arriving = arrived + size, self._arriving + size
            if arrived > LARGEST + AROUND:
                raise HTTPException(413, f"uploads of more than {LARGEST >> 20} MB are refused")
            if self._arriving > self.most:
                raise HTTPException(413, "too much is being uploaded at once; try again later")
            self._make_room()
            return message

        try:
            response = await self._answer(Request(scope, counted))
        except ClientDisconnect:
            return
        except HTTPException as error:
            response = PlainTextResponse(error.detail, error.status_code)
        except MultiPartException as error:
            response = PlainTextResponse(f"not a form with one picture: {error.message}", 400)
        except OSError as error:
            response = PlainTextResponse(f"the upload cannot be stored ({in_a_line(error)})", 507)
        finally:
            self._arriving -= arrived
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        # Of other kinds of forms all would be held in memory.
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(400, "not a form with one picture")
        # Until all of it is there, starlette holds it in a file without a name, which no kill leaves behind.
        async with request.form(max_files=1, max_fields=1) as form:
            files = [file for file in form.values() if isinstance(file, UploadFile)]
            if len(files) != 1:
                raise HTTPException(400, "not a form with one picture")
            async with self._one_by_one:
                path = await to_thread.run_sync(self._store, files[0])
        self._make_room()
        return JSONResponse([path])

    def _store(self, file: UploadFile) -> str:
        """Keep an upload if it is a picture; return its path, which says nothing of what its sender called it."""
        path = self.folder / secrets.token_hex(16)
        try:
            with path.open("xb") as stored:
                shutil.copyfileobj(file.file, stored)
            cards.thumbnail(path)
        except InputError as error:
            path.unlink()
            self._faults[str(path)] = one_line(error).replace(str(path), shown(file.filename or "the upload"))
            if len(self._faults) > REMEMBERED:
                del self._faults[next(iter(self._faults))]
        except OSError:
            path.unlink(missing_ok=True)
            raise
        else:
            self._sizes[str(path)] = path.stat().st_size
        return str(path)

    def _make_room(self) -> None:
        """Delete the oldest pictures until the rest, and what arrives, is no more than is kept."""
        while self._sizes and sum(self._sizes.values()) + self._arriving > self.most:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest]
            Path(oldest).unlink(missing_ok=True)
