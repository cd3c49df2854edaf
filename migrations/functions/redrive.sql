-- Gives dead letters a full new budget: back among the deferred, behind what is in flight for their key, with their
-- own copy of the message, so that it does not matter whether the log still has it. One that the group has before it
-- again anyway, because of a seek, only leaves the dead letters; but what retention took, the cursor will step over.
-- Its time to live goes on; past it, it is never delivered, so it stays among the dead letters, where it can be read.
-- Returns how many were given back.
create or replace function redrive(p bigint, g int, wanted bigint[])
returns int
language plpgsql as $$
#variable_conflict use_column
declare
    n int;
    n_back int;
    passed_to bigint;
begin
    select c.next_offset into passed_to
    from cursors c where c.partition_id = p and c.group_id = g for no key update;
    select greatest(x.first_offset, passed_to) into passed_to from partitions x where x.id = p;
    perform from leases l where l.partition_id = p and l.group_id = g order by l.id, l.deadline for update;
    with gone as (
        delete from dead_letters l
        where l.partition_id = p and l.group_id = g and l."offset" = any (wanted)
          and (l.published_at + make_interval(secs => (l.meta ->> 'ttlMs')::bigint / 1000.0) <= clock_timestamp())
              is not true
        returning l.*),
    back as (
        insert into deferred as d
            (partition_id, group_id, "offset", key, state, redriven, published_at, meta, payload, expires_at)
        select p, g, x."offset", x.key, 'held', true, x.published_at, x.meta, x.payload,
               x.published_at + make_interval(secs => (x.meta ->> 'ttlMs')::bigint / 1000.0)
        from gone x
        where x."offset" < passed_to
          and not exists (select from leases l
                          where l.partition_id = p and l.group_id = g and l.pending @> x."offset")
        on conflict (partition_id, group_id, "offset") do nothing
        returning 1)
    select (select count(*) from gone), (select count(*) from back) into n, n_back;
    update cursors c set removed = c.removed + n, redriven = c.redriven + n_back
    where c.partition_id = p and c.group_id = g and n > 0;
    return n;
end $$;
