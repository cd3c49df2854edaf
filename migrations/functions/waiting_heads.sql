-- The keys that wait in a partition of a group, and whether the first message of each may go. One step down the index
-- for a key, however many wait behind it; where keys are many, the rest of them in one scan.
create or replace function waiting_heads(p bigint, g int, t timestamptz)
returns table (key text, ready boolean)
language plpgsql stable rows 100 as $$
#variable_conflict use_column
declare
    few constant int := 200;
    found_keys text[];
    found_ready boolean[];
begin
    with recursive heads as (
        (select d.key, d.state = 'held' or d.due_at <= t as ready
         from deferred d
         where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed'
           and d.key is not null
         order by d.key, d."offset" limit 1)
        union all
        select n.key, n.ready
        from heads h
        cross join lateral (
            select d.key, d.state = 'held' or d.due_at <= t as ready
            from deferred d
            where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed'
              and d.key > h.key
            order by d.key, d."offset" limit 1) n)
    select array_agg(h.key), array_agg(h.ready) into found_keys, found_ready
    from (select x.key, x.ready from heads x limit few) h;
    return query select f.key, f.ready from unnest(found_keys, found_ready) f (key, ready);
    if cardinality(found_keys) = few then
        return query
        select distinct on (d.key) d.key, d.state = 'held' or d.due_at <= t
        from deferred d
        where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed'
          and d.key > found_keys[few]
        order by d.key, d."offset";
    end if;
end $$;
