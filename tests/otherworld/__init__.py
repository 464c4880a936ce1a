"""A second dataset with known failures: a coding agent, traced by OpenTelemetry's GenAI conventions.

Unlike the sample dataset in all that a reader could lean on: attribute keys, span names, UNSET for what went well,
exceptions as top-level events (on every span they escape through), nanosecond times, failures told in outputs.
"""

from tests.otherworld.plan import PLAN as PLAN
from tests.otherworld.plan import Injection as Injection
from tests.otherworld.truth import ModeTruth as ModeTruth
from tests.otherworld.truth import Quote as Quote
from tests.otherworld.truth import ToolTruth as ToolTruth
from tests.otherworld.truth import WorldTruth as WorldTruth
from tests.otherworld.world import write_world as write_world
