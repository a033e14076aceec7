"""How jobs run: in a container, in a virtual environment, or in the environment that is there."""
