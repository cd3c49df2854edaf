-- Puts deferred messages that are due and free into a lease, and returns their offsets and the bytes of their payloads.
-- In order of keys, a message is free when everything of its key that waits before it goes along, and its key is not
-- in flight elsewhere.
-- The caller holds the cursor's row. At least one is taken, however large, where is_first.
create or replace function take_deferred(
    p bigint, g int, t timestamptz, lease bigint, wanted int, byte_limit bigint, ordered boolean, flying text[],
    is_first boolean, out picked bigint[], out picked_bytes bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    vanished bigint[];
begin
    if ordered then
        with free as materialized (
            select h.key from waiting_heads(p, g, t) h where h.ready and h.key <> all (coalesce(flying, '{}'))),
        runs as (
            select r.o, bool_and(r.ready) over (partition by f.key order by r.o) as ready
            from free f
            cross join lateral (
                select d."offset" as o, d.state = 'held' or d.due_at <= t as ready
                from deferred d
                where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed'
                  and d.key = f.key
                order by d."offset" limit wanted) r),
        chosen as (
            select r.o from runs r where r.ready
            union all
            select d."offset" from deferred d
            where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed'
              and d.key is null and (d.state = 'held' or d.due_at <= t)
            order by 1 limit wanted)
        select array_agg(o) into picked from chosen;
    else
        with chosen as (
            select d."offset" as o from deferred d
            where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed'
              and d.due_at <= t
            order by d.due_at, d."offset" limit wanted)
        select array_agg(o) into picked from chosen;
    end if;
    if picked is null then
        picked := '{}';
        picked_bytes := 0;
        return;
    end if;

    with sized as (
        select w.o, octet_length(coalesce(d.payload, m.payload)) as size
        from unnest(picked) w (o)
        join deferred d on d.partition_id = p and d.group_id = g and d."offset" = w.o
        left join messages_at(p, picked) m on m."offset" = w.o),
    summed as (
        select s.o, s.size, sum(s.size) over (order by s.o) as total, count(s.size) over (order by s.o) as n from sized s)
    select array_agg(s.o order by s.o) filter (where s.size is not null and (s.total <= byte_limit or s.n = 1 and is_first)),
           array_agg(s.o) filter (where s.size is null),
           coalesce(sum(s.size) filter (where s.total <= byte_limit or s.n = 1 and is_first), 0)
    into picked, vanished, picked_bytes
    from summed s;

    if vanished is not null then  -- neither the log nor a copy has it: it was lost to somebody's hands
        delete from deferred d where d.partition_id = p and d.group_id = g and d."offset" = any (vanished);
        update cursors c set lost = c.lost + cardinality(vanished), passed = c.passed - cardinality(vanished)
        where c.partition_id = p and c.group_id = g;
    end if;
    update deferred d set lease_id = lease
    where d.partition_id = p and d.group_id = g and d."offset" = any (picked);
    picked := coalesce(picked, '{}');
end $$;
