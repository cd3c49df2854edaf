-- While a message waits for its retry, later ones of its key that are in flight are taken back and held:
-- their ackIds become stale and they use no attempt.
create or replace function hold_followers(p bigint, g int, retried bigint[], retried_keys text[])
returns void
language plpgsql as $$
#variable_conflict use_column
declare
    held int8multirange;
begin
    with heads as (
        select r.key, min(r.o) as o from unnest(retried, retried_keys) r (o, key) group by r.key),
    flying as materialized (
        select l.id, l.deadline, f.o
        from leases l
        cross join lateral unnest(l.pending) r
        cross join lateral generate_series(lower(r), upper(r) - 1) f (o)
        where l.partition_id = p and l.group_id = g),
    named as (
        select k."offset" as o, k.key from keys_at(p, (select array_agg(f.o) from flying f)) k
        union
        select d."offset", d.key from deferred d
        where d.partition_id = p and d.group_id = g and d.lease_id is not null and d.key is not null),
    followers as materialized (
        select f.id, f.deadline, f.o, n.key
        from flying f join named n on n.o = f.o join heads h on h.key = n.key and h.o < f.o),
    taken as (
        update leases l
        set pending = l.pending - x.back, revoked = l.revoked + x.back
        from (select f.id, f.deadline, range_agg(int8range(f.o, f.o + 1)) as back
              from followers f group by f.id, f.deadline) x
        where l.partition_id = p and l.group_id = g and l.id = x.id and l.deadline = x.deadline
        returning l.id)
    insert into deferred as d (partition_id, group_id, "offset", key, state)
    select p, g, f.o, f.key, 'held' from followers f where exists (select 1 from taken)
    on conflict (partition_id, group_id, "offset") do update
    set state = 'held', lease_id = null, due_at = '-infinity';
end $$;
