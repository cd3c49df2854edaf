-- Deliveries that failed: one attempt of each is used up. What has attempts left waits for its retry and holds back
-- its key; what has none is buried, which releases the key. Called by expire and nack, which hold the cursor's row
-- and have already taken the offsets out of their leases. Arrays run side by side; a delay of null means the backoff.
-- Returns how many were buried.
create or replace function fail(
    p bigint, g int, t timestamptz, failed bigint[], delays bigint[], reasons text[], outcome text, details jsonb[])
returns int
language plpgsql as $$
#variable_conflict use_column
declare
    config jsonb;
    policy jsonb;
    max_attempts int;
    exhausted bigint[];
    retried bigint[];
    retried_keys text[];
begin
    select gr.config, gr.config -> 'retries' into config, policy from groups gr where gr.id = g;
    max_attempts := (policy ->> 'max')::int + 1;

    insert into deferred as d (partition_id, group_id, "offset", key, state, attempt, due_at, error, expires_at)
    select p, g, f.o, m.key, 'retrying', 1,
           t + make_interval(secs => coalesce(f.delay, backoff_ms(policy, 1)) / 1000.0), f.reason,
           m.published_at + make_interval(secs => (m.meta ->> 'ttlMs')::bigint / 1000.0)
    from unnest(failed, delays, reasons) f (o, delay, reason)
    left join envelopes_at(p, failed) m on m."offset" = f.o
    on conflict (partition_id, group_id, "offset") do update
    set state = 'retrying', attempt = d.attempt + 1, lease_id = null, error = excluded.error;

    -- Later attempts back off further than the first, which is all the insert could know; and what was deferred before
    -- its first attempt, held or handed back, has no time yet.
    update deferred d
    set due_at = t + make_interval(secs => coalesce(f.delay, backoff_ms(policy, d.attempt)) / 1000.0)
    from unnest(failed, delays) f (o, delay)
    where d.partition_id = p and d.group_id = g and d."offset" = f.o
      and (d.attempt > 1 or d.due_at = '-infinity');

    perform record_attempts(p, g, t, array_agg(f.o), array_agg(d.attempt), array_agg(outcome), array_agg(f.reason),
                            array_agg(f.detail))
    from unnest(failed, reasons, details) f (o, reason, detail)
    join deferred d on d.partition_id = p and d.group_id = g and d."offset" = f.o;

    select array_agg(d."offset") filter (where d.attempt >= max_attempts),
           array_agg(d."offset") filter (where d.attempt < max_attempts and d.key is not null),
           array_agg(d.key) filter (where d.attempt < max_attempts and d.key is not null)
    into exhausted, retried, retried_keys
    from deferred d
    where d.partition_id = p and d.group_id = g and d."offset" = any (failed);

    if exhausted is not null then
        if exists (select from hooks h
                   where h.topic_id = p >> 16 and h.event = 'dead' and h.group_id in (0, g)) then
            insert into announcements
                (partition_id, group_id, event, at, offsets, key, meta, published_at, error)
            select p, g, 'dead', t, int8multirange(int8range(d."offset", d."offset" + 1)), d.key,
                   coalesce(d.meta, m.meta), coalesce(d.published_at, m.published_at), d.error
            from deferred d
            left join envelopes_at(p, exhausted) m on m."offset" = d."offset"
            where d.partition_id = p and d.group_id = g and d."offset" = any (exhausted);
        end if;
        perform bury(p, g, t, exhausted, (config -> 'deadLetter' ->> 'enabled')::boolean);
    end if;
    if retried is not null and config ->> 'ordering' <> 'none' then
        perform hold_followers(p, g, retried, retried_keys);
    end if;
    return coalesce(cardinality(exhausted), 0);
end $$;
