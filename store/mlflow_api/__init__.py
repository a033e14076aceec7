"""MLflow's REST interface over a store: `mltrack server`. The facts it follows are MLflow's own protocol, 2.x and 3.x.

Everything runs in one thread on one open store, so a read sees every write before it. Points and other facts of runs go to
journals of the server's own, as a training process would write them; experiments, the trash and the registry are decisions.
"""
