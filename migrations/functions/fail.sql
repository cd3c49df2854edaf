-- Deliveries that failed: one attempt of each is used up. What has attempts left waits for its retry and holds back
-- its key; what has none is buried, which releases the key. Called by expire and nack, which hold the cursor's row
-- and have already taken the offsets out of their leases. Arrays run side by side; a delay of null means the backoff.
create or replace function fail(
    p bigint, g int, t timestamptz, failed bigint[], delays bigint[], reasons text[], failed_outcome text)
returns void
language plpgsql as $$
#variable_conflict use_column
declare
    config jsonb;
    policy jsonb;
    ordered boolean;
    max_attempts int;
    exhausted bigint[];
    retried bigint[];
    retried_keys text[];
begin
    select gr.config, gr.config -> 'retries' into config, policy from groups gr where gr.id = g;
    max_attempts := (policy ->> 'max')::int + 1;
    ordered := config ->> 'ordering' <> 'none';

    insert into deferred as d (partition_id, group_id, "offset", key, state, attempt, due_at, error)
    select p, g, f.o, k.key, 'retrying', 1,
           t + make_interval(secs => coalesce(f.delay, backoff_ms(policy, 1)) / 1000.0), f.reason
    from unnest(failed, delays, reasons) f (o, delay, reason)
    left join keys_at(p, failed) k on k."offset" = f.o
    on conflict (partition_id, group_id, "offset") do update
    set state = 'retrying', attempt = d.attempt + 1, lease_id = null, error = excluded.error;

    -- Later attempts back off further than the first, which is all the insert could know.
    update deferred d
    set due_at = t + make_interval(secs => coalesce(f.delay, backoff_ms(policy, d.attempt)) / 1000.0)
    from unnest(failed, delays) f (o, delay)
    where d.partition_id = p and d.group_id = g and d."offset" = f.o and d.attempt > 1;

    insert into attempts (partition_id, "offset", group_id, attempt, at, outcome, error)
    select p, d."offset", g, d.attempt, t, failed_outcome, d.error
    from deferred d
    where d.partition_id = p and d.group_id = g and d."offset" = any (failed);

    select array_agg(d."offset") filter (where d.attempt >= max_attempts),
           array_agg(d."offset") filter (where d.attempt < max_attempts and d.key is not null),
           array_agg(d.key) filter (where d.attempt < max_attempts and d.key is not null)
    into exhausted, retried, retried_keys
    from deferred d
    where d.partition_id = p and d.group_id = g and d."offset" = any (failed);

    if exhausted is not null then
        perform bury(p, g, t, exhausted, (config -> 'deadLetter' ->> 'enabled')::boolean);
    end if;
    if ordered and retried is not null then
        perform hold_followers(p, g, retried, retried_keys);
    end if;
end $$;
