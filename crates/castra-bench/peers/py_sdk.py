"""The official Python SDK as a driver: receives everything, stores nothing. Prints one line of JSON."""

import asyncio
import json
import resource
import sys
import time

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ResultMessage


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main(cli: str, prompt: str) -> None:
    options = ClaudeAgentOptions(cli_path=cli, include_partial_messages=True)
    async with ClaudeSDKClient(options) as client:
        messages, began, used = 0, time.monotonic(), cpu()
        await client.query(prompt)
        async for message in client.receive_messages():
            messages += 1
            if isinstance(message, ResultMessage):
                break
        print(json.dumps({
            "events": messages,
            "cpu_us": (cpu() - used) * 1e6,
            "wall_us": (time.monotonic() - began) * 1e6,
        }))


asyncio.run(main(sys.argv[1], sys.argv[2]))
