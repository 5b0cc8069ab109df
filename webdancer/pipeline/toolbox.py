"""Search and visit over a snapshot, as every agent of a run uses them."""

from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings
from webdancer.llm.protocol import ChatModel
from webdancer.web.search import SnapshotReader, SnapshotSearch
from webdancer.web.snapshot import Snapshot


def make_toolbox(snapshot: Snapshot, summariser: ChatModel, settings: AgentSettings) -> Toolbox:
    """The tools over one snapshot; pages are read by the summariser role."""
    return Toolbox(SnapshotSearch(snapshot), SnapshotReader(snapshot), summariser, settings)
