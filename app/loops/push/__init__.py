"""Push: every replica delivers to the webhooks of all push groups, as one more consumer of each.

    fleet ── finds the push groups, starts and ends a dispatcher for each
      dispatcher ── claims, keeps the leases, runs the queues       pull, extend
        courier ── one message at a time of a queue: sends, judges  webhook/send
          gate ── may anything be sent: breaker, throttle, rate     endpoints
          ledger ── how deliveries ended, in as few calls as can be settle

Nothing here decides who may have a message: claims and leases do, in the database. What is kept in this process is
work in hand; when the process dies, its leases end and others take over.
"""
