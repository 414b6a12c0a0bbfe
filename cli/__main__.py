"""`python -m marl_sale_cli` is `marl-sale`."""

from .app import main

main()
