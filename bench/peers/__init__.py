"""What a user would pick instead of Logpost, measured beside it: ``python -m bench.peers``.

    run ── starts every peer that is here, each in a directory and on a port of its own, loopback only
     └─ scenarios ── round by round: peer A, B, C …, A, B, C …  so that the machine's mood is the same for all
         └─ load ── one generator in a process of its own; says how much of its core it used
             └─ a peer's Session ── the leanest client of its protocol: bytes made once, nothing parsed without need

A peer is one small file with a server side (``Peer``) and a client side (``Session``); see ``peer``. All of them store
a message before they acknowledge it, in the way their ``durability`` says; ``durable`` is true where that is an fsync.
"""
