"""Flower, the engine of a real federation, in processes of its own beside ours.

    server machine                                         each site
    atoll server ── grid ──> SuperLink <── network ── SuperNode <── node ── atoll client
                  (pipe)      (link)    sites connect            (pipe)

`link`, `grid`, `supernode` and `node` are what these processes run; nothing here imports torch.
"""
