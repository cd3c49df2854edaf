-- While a message waits for its retry, later ones of its key that are in flight are taken back and held:
-- their ackIds become stale and they use no attempt. The caller holds the cursor's row.
create or replace function hold_followers(p bigint, g int, waiting bigint[], waiting_keys text[])
returns void
language plpgsql as $$
#variable_conflict use_column
declare
    flying bigint[];
    held bigint[];
    held_keys text[];
    held_expiries timestamptz[];
begin
    -- An ack in between would otherwise be undone: after this, whoever settles waits for us.
    perform from leases l where l.partition_id = p and l.group_id = g order by l.id, l.deadline for update;
    select array_agg(f.o) into flying
    from leases l
    cross join lateral unnest(l.pending) r
    cross join lateral generate_series(lower(r), upper(r) - 1) f (o)
    where l.partition_id = p and l.group_id = g;
    if flying is null then
        return;
    end if;

    select array_agg(n.o), array_agg(n.key), array_agg(n.expiry) into held, held_keys, held_expiries
    from (select k."offset" as o, k.key,
                 k.published_at + make_interval(secs => (k.meta ->> 'ttlMs')::bigint / 1000.0) as expiry
          from envelopes_at(p, flying) k
          where k.key is not null and not exists (
              select from deferred d
              where d.partition_id = p and d.group_id = g and d."offset" = k."offset")
          union all
          select d."offset", d.key, d.expires_at from deferred d
          where d.partition_id = p and d.group_id = g and d."offset" = any (flying) and d.key is not null) n
    join (select w.key, min(w.o) as o from unnest(waiting, waiting_keys) w (o, key) group by w.key) head
      on head.key = n.key and head.o < n.o;
    if held is null then
        return;
    end if;

    perform take_back(p, g, held);
    insert into deferred as d (partition_id, group_id, "offset", key, state, expires_at)
    select p, g, h.o, h.key, 'held', h.expiry from unnest(held, held_keys, held_expiries) h (o, key, expiry)
    on conflict (partition_id, group_id, "offset") do update
    set state = 'held', lease_id = null, due_at = '-infinity';
end $$;
