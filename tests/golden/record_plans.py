"""Records what the shipped configs need on TPU slices: collectives, memory, traffic, products.

    python tests/golden/record_plans.py [CONFIG@TOPOLOGY …]      with libtpu; writes plans.json

Every case of plans.json is compiled again (a minute or two each), or those that are named.
"""

import json
import sys
from pathlib import Path

from electra_jax.config import load_config
from electra_jax.planning.plan import plan_placement, resolve_for_accelerators, tally
from electra_jax.planning.topology import stay_on_cpu, tpu_topology

FILE = Path(__file__).parent / "plans.json"


def record(case: dict) -> dict:
    """The case with what its compiled step needs of a chip."""
    config = resolve_for_accelerators(load_config(case["config"], case["overrides"]))
    placement = plan_placement(config, case["topology"], tpu_topology(case["topology"]))
    tokens = config.train.batch_size * config.data.length / placement.chips
    assert placement.estimate is not None
    return {
        **{name: case[name] for name in ("config", "topology", "overrides")},
        "fits": placement.fits,
        "gib": round(placement.memory.needed / 2**30, 2),
        "mb_per_token": round(placement.estimate.hbm_bytes / tokens / 1e6, 3),
        "products": placement.products,
        "collectives": [
            [row["kind"], row["group"], row["count"], row["bytes"]]
            for row in tally(placement.collectives)
        ],
    }


def main() -> None:
    stay_on_cpu()
    cases = json.loads(FILE.read_text())
    for number, case in enumerate(cases):
        name = f"{case['config']}@{case['topology']}"
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        cases[number] = record(case)
        print(name, cases[number]["gib"], "GiB", cases[number]["collectives"], flush=True)
        FILE.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
