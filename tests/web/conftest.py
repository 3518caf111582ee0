from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from .workers import Data, Group


@pytest.fixture
def data() -> Data:
    return Data()


@asynccontextmanager
async def start_group(data: Data) -> AsyncIterator[Group]:
    """Workers over some data, gone afterwards."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Group(stack, client, data)


@pytest.fixture
async def group(data: Data) -> AsyncIterator[Group]:
    async with start_group(data) as group:
        yield group
