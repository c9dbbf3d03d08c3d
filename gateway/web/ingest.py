"""Routes that tracers send to: OTLP/HTTP, and Respan's own form."""

from typing import Any

from aiohttp import web

from gateway.core import otlp
from gateway.core.encoding import decoded
from gateway.core.jsontext import parse
from gateway.core.otlp import OtlpSpan
from gateway.errors import MalformedBody, RefusedRequest
from gateway.recorder import Caller, Recorder
from gateway.web.bodies import media_type, read_body
from gateway.web.replies import error_reply, json_reply
from gateway.web.spans import refused_by_store

_PROTOBUF = ("application/x-protobuf", "application/protobuf")
# Of what is wrong with the spans of one request, so many mistakes are told.
_TOLD_AT_MOST = 10


class IngestHandlers:
    """What the routes for tracers do."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def otlp(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """An ExportTraceServiceRequest, as protobuf or JSON. What cannot be stored is told as a partial success."""
        body = await _plain(request)
        is_protobuf = media_type(request) in _PROTOBUF
        if is_protobuf:
            # Not at the start: protobuf takes a tenth of a second to load, and few need it.
            from gateway.core import otlp_protobuf as protobuf

            spans = protobuf.spans(body)
        else:
            spans = otlp.from_json(parse(body))
        readable = [otlp.raw_span(span) for span in spans if isinstance(span, OtlpSpan)]
        unreadable = [span for span in spans if isinstance(span, str)]
        ends = await self._recorder.create_spans(readable, caller, traced=True, lenient=True)
        if (refused := refused_by_store(ends)) is not None:
            return error_reply(request, refused)
        wrong = [*unreadable, *(str(end) for end in ends if isinstance(end, RefusedRequest))]
        message = "; ".join(wrong[:_TOLD_AT_MOST])
        if not is_protobuf:
            return json_reply({"partialSuccess": {"rejectedSpans": len(wrong), "errorMessage": message}})
        return web.Response(body=protobuf.reply(len(wrong), message), content_type=media_type(request))

    async def rows(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Spans as create-span takes them, with the ids of their traces: a list, or `data` with one."""
        sent = parse(await _plain(request))
        rows = sent.get("data") if isinstance(sent, dict) else sent
        if not isinstance(rows, list):
            raise MalformedBody("The body must be a list of spans, or an object with one in data.")
        ends = await self._recorder.create_spans(rows, caller, traced=True)
        if (refused := refused_by_store(ends)) is not None:
            return error_reply(request, refused)
        errors = [{"index": n, "error": str(end)} for n, end in enumerate(ends) if isinstance(end, RefusedRequest)]
        traces = {
            str(row["trace_unique_id"]): None for row, end in zip(rows, ends, strict=True) if isinstance(end, str)
        }
        stored = len(ends) - len(errors)
        body: dict[str, Any] = {
            "message": f"Ingested {stored} spans.",
            "status": "ok" if not errors else "partial" if stored else "error",
            "success": not errors,
            "ingested_spans": stored,
            "ingested_count": stored,
            "created_traces": len(traces),
            "trace_ids": list(traces),
            "errors": errors,
        }
        return json_reply(body, 400 if errors and not stored else 200)


async def _plain(request: web.Request) -> bytes:
    encoding = request.headers.get("Content-Encoding", "")
    return decoded(await read_body(request), encoding, request.client_max_size)
