"""The control endpoint below `/-/` for other processes: faults, request log and rate limit."""

from __future__ import annotations

from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.faults import Fault
from mlxk_tui.demo.hub.replies import HubError, Reply, json_reply


async def handle(context: HandlerContext) -> Reply:
    """Handle a request to the control endpoint.

    - `POST /-/faults`: add a fault (an object with the fields of `Fault`), or `{"faults": [...]}`
    - `GET /-/faults`: list all faults with `hits` and `left`; `DELETE /-/faults`: remove them
    - `GET /-/requests`: return the request log; `DELETE /-/requests`: clear it
    - `POST /-/rate` `{"rate": bytes per second or null}`: set the rate limit of connections
    - `GET /-/repos`: return the names of all repos with their newest commits
    """
    state = context.state
    match context.request.method, context.segments[1:]:
        case "POST", ["faults"]:
            body = await context.json()
            try:
                faults = [Fault.from_json(item) for item in body.get("faults", [body])]
            except (ValueError, TypeError, AttributeError) as problem:
                raise HubError(400, str(problem)) from problem
            for fault in faults:
                state.faults.add(fault)
            return json_reply(state.faults.to_json())
        case "GET", ["faults"]:
            return json_reply(state.faults.to_json())
        case "DELETE", ["faults"]:
            state.faults.clear()
            return json_reply([])
        case "GET", ["requests"]:
            return json_reply(state.requests.to_json())
        case "DELETE", ["requests"]:
            state.requests.clear()
            return json_reply([])
        case "POST", ["rate"]:
            rate = (await context.json()).get("rate")
            if rate is not None and (not isinstance(rate, (int, float)) or rate <= 0):
                raise HubError(400, "`rate` must be a positive number of bytes per second, or null")
            state.rate_per_connection = rate
            return json_reply({"rate": rate})
        case "GET", ["repos"]:
            return json_reply({name: repo.head.oid for name, repo in state.repos.items()})
    raise HubError(404, "Unknown control request.")
