"""The letters of every shape in this library.

| letter | axis                                             |
|--------|--------------------------------------------------|
| B      | batch: episodes of one update                    |
| E      | parallel environments                            |
| T      | time: steps of an episode (T + 1 observations)   |
| N      | agents                                           |
| A      | actions of one agent                             |
| O      | size of a local observation                      |
| S      | size of the global state                         |
| H      | size of the recurrent state                      |
| D      | size of an embedding (SALE) or latent (VAE)      |
| L      | length of an imagined roll-out                   |

The aliases below are for annotations: `Float[Tensor, BTNH]`.
"""

BT = "batch time"
BTS = "batch time state"
BTN = "batch time agents"
BTNA = "batch time agents actions"
BTNO = "batch time agents obs"
BTNH = "batch time agents hidden"
BTND = "batch time agents latent"
EN = "envs agents"
ENA = "envs agents actions"
ENO = "envs agents obs"
ENH = "envs agents hidden"
ES = "envs state"
E = "envs"
