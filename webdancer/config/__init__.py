"""The settings of all stages: one frozen object that travels through them.

Every setting has a default; `configs/*.toml` show the settings in use (`tiny`: the default run), and `settings_file` reads such
files.
"""

from webdancer.config.base import Settings
from webdancer.config.data import AgentSettings, EvalSettings, FunnelSettings, SampleSettings, SynthSettings
from webdancer.config.models import EndpointSettings, LlmSettings, ScribeFaultSettings
from webdancer.config.outside import BudgetSettings, ForecastSettings, McpServerSettings
from webdancer.config.training import PolicySettings, PretrainSettings, RlSettings, SftSettings
from webdancer.config.web import CrawlSettings, ProviderSettings, WebSettings, WorldSettings

__all__ = [
    "AgentSettings",
    "BudgetSettings",
    "Config",
    "CrawlSettings",
    "EndpointSettings",
    "EvalSettings",
    "ForecastSettings",
    "FunnelSettings",
    "LlmSettings",
    "McpServerSettings",
    "PolicySettings",
    "PretrainSettings",
    "ProviderSettings",
    "RlSettings",
    "SampleSettings",
    "ScribeFaultSettings",
    "Settings",
    "SftSettings",
    "SynthSettings",
    "WebSettings",
    "WorldSettings",
]


class Config(Settings):
    """All settings of a run."""

    seed: int = 0
    world: WorldSettings = WorldSettings()
    crawl: CrawlSettings = CrawlSettings()
    web: WebSettings = WebSettings()
    llm: LlmSettings = LlmSettings()
    budget: BudgetSettings = BudgetSettings()
    forecast: ForecastSettings = ForecastSettings()
    mcp: dict[str, McpServerSettings] = {}
    """MCP servers whose tools the agent has besides search and visit: `[mcp.NAME]` each."""
    agent: AgentSettings = AgentSettings()
    synth: SynthSettings = SynthSettings()
    sample: SampleSettings = SampleSettings()
    funnel: FunnelSettings = FunnelSettings()
    pretrain: PretrainSettings = PretrainSettings()
    policy: PolicySettings = PolicySettings()
    sft: SftSettings = SftSettings()
    rl: RlSettings = RlSettings()
    eval: EvalSettings = EvalSettings()
