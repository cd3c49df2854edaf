-- Settles what leases still hold of the given offsets (multiranges as text, one for each lease, once each).
-- Returns what was settled, a row for every lease that held any of it; freed: somebody may be waiting for just that.
create or replace function ack(p bigint, g int, lease_ids bigint[], acked text[])
returns table (lease_id bigint, settled int8multirange, freed boolean)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    t timestamptz := clock_timestamp();
    ids bigint[];
    hits int8multirange[];
    deferrals bigint[];
    part_ids bigint[];
    part_hits int8multirange[];
    part_deferrals bigint[];
    copied int8multirange;
    is_freed boolean;
begin
    if cardinality(lease_ids) > 1 then  -- in one order everywhere, or two of these could wait for each other
        perform from leases l
        where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) order by l.id, l.deadline for update;
    end if;
    with asked as (
        select a.id, a.offsets from unnest(lease_ids, acked::int8multirange[]) a (id, offsets)),
    emptied as (
        delete from leases l using asked a
        where l.partition_id = p and l.group_id = g and l.id = a.id and l.deadline > t and l.pending <@ a.offsets
        returning l.id, l.pending, l.deferrals, l.deadline),
    remembered as (  -- of those that were extended: an id knows only the first deadline
        insert into past_leases as x (partition_id, group_id, id, until)
        select p, g, e.id, max(e.deadline) from emptied e
        where (extract(epoch from e.deadline) * 1000)::bigint <> e.id >> 20 group by e.id
        on conflict (partition_id, group_id, id) do update set until = greatest(x.until, excluded.until))
    select array_agg(e.id), array_agg(e.pending), array_agg(e.id) filter (where e.deferrals)
    into ids, hits, deferrals from emptied e;

    if exists (select from leases l where l.partition_id = p and l.group_id = g and l.id = any (lease_ids)) then
        perform from leases l
        where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) order by l.id, l.deadline for update;
        select array_agg(l.id), array_agg(l.pending * a.offsets), array_agg(l.id) filter (where l.deferrals)
        into part_ids, part_hits, part_deferrals
        from leases l join unnest(lease_ids, acked::int8multirange[]) a (id, offsets) on a.id = l.id
        where l.partition_id = p and l.group_id = g and l.deadline > t and l.pending && a.offsets;
        update leases l set pending = l.pending - a.offsets
        from unnest(lease_ids, acked::int8multirange[]) a (id, offsets)
        where l.partition_id = p and l.group_id = g and l.id = a.id and l.deadline > t and l.pending && a.offsets;
        with emptied as (
            delete from leases l
            where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) and isempty(l.pending)
            returning l.id, l.deadline)
        insert into past_leases as x (partition_id, group_id, id, until)
        select p, g, e.id, max(e.deadline) from emptied e
        where (extract(epoch from e.deadline) * 1000)::bigint <> e.id >> 20 group by e.id
        on conflict (partition_id, group_id, id) do update set until = greatest(x.until, excluded.until);
    end if;
    deferrals := coalesce(deferrals, '{}') || coalesce(part_deferrals, '{}');
    ids := coalesce(ids, '{}') || coalesce(part_ids, '{}');
    hits := coalesce(hits, '{}') || coalesce(part_hits, '{}');
    if cardinality(ids) > 0
       and exists (select from hooks h where h.topic_id = p >> 16 and h.event = 'acked' and h.group_id = 0) then
        with own as (  -- the log may not have these any more
            insert into announcements (partition_id, group_id, event, at, offsets, key, meta, published_at)
            select p, g, 'acked', t, int8multirange(int8range(d."offset", d."offset" + 1)), d.key, d.meta,
                   d.published_at
            from deferred d
            join unnest(ids, hits) s (id, offsets) on d.lease_id = s.id and s.offsets @> d."offset"
            where d.partition_id = p and d.group_id = g and d.lease_id = any (deferrals) and d.payload is not null
            returning offsets)
        select coalesce(range_agg(r), '{}') into copied from own cross join lateral unnest(own.offsets) r;
        insert into announcements (partition_id, group_id, event, at, offsets)
        select p, g, 'acked', t, range_agg(r) - copied
        from unnest(hits) h (part) cross join lateral unnest(h.part) r
        having not range_agg(r) <@ copied;
    end if;
    if cardinality(deferrals) > 0 then
        delete from deferred d
        using unnest(ids, hits) s (id, offsets)
        where d.partition_id = p and d.group_id = g and d.lease_id = s.id and s.offsets @> d."offset";
    end if;
    is_freed := exists (
        select from deferred d
        where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed');
    return query select s.id, s.offsets, is_freed from unnest(ids, hits) s (id, offsets);
end $$;
