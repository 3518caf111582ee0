from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from .workers import Data, Group


@pytest.fixture
def data() -> Data:
    return Data()


@pytest.fixture
async def group(data: Data) -> AsyncIterator[Group]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Group(stack, client, data)
