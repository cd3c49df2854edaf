-- Settles what leases still hold of the given offsets (multiranges as text, one for each lease, once each).
-- Returns what was settled, a row for every lease that held any of it; freed: somebody may be waiting for just that.
create or replace function ack(p bigint, g int, lease_ids bigint[], acked text[])
returns table (lease_id bigint, settled int8multirange, freed boolean)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    t timestamptz := clock_timestamp();
    ids bigint[]; hits int8multirange[];
    part_ids bigint[]; part_hits int8multirange[];
    deferrals bigint[]; part_deferrals bigint[];
    is_rest boolean; is_emptied boolean;
    moved_ids bigint[]; moved_to timestamptz[];  -- ended, of leases that were extended
    copied int8multirange;
    is_told boolean; is_freed boolean;
begin
    if cardinality(lease_ids) > 1 then  -- in one order everywhere, or two of these could wait for each other
        perform from leases l
        where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) order by l.id, l.deadline for update;
    end if;
    with ended as (
        delete from leases l using unnest(lease_ids, acked::int8multirange[]) a (id, offsets)
        where l.partition_id = p and l.group_id = g and l.id = a.id and l.deadline > t and l.pending <@ a.offsets
        returning l.id, l.pending, l.deferrals, l.deadline, l.pending = a.offsets as is_all,
                  (extract(epoch from l.deadline) * 1000)::bigint <> l.id >> 20 as is_moved)
    select array_agg(e.id), array_agg(e.pending), array_agg(e.id) filter (where e.deferrals),
           array_agg(e.id) filter (where e.is_moved), array_agg(e.deadline) filter (where e.is_moved),
           count(*) filter (where e.is_all) < cardinality(lease_ids)
    into ids, hits, deferrals, moved_ids, moved_to, is_rest
    from ended e;

    if is_rest then  -- a part of a lease, or what another part of it holds
        perform from leases l
        where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) order by l.id, l.deadline for update;
        with part as (
            update leases l set pending = l.pending - w.hit
            from (select o.id, o.deadline, o.pending * a.offsets as hit
                  from leases o join unnest(lease_ids, acked::int8multirange[]) a (id, offsets) on a.id = o.id
                  where o.partition_id = p and o.group_id = g and o.deadline > t and o.pending && a.offsets) w
            where l.partition_id = p and l.group_id = g and l.id = w.id and l.deadline = w.deadline
            returning l.id, w.hit, l.deferrals, isempty(l.pending) as is_empty)
        select array_agg(x.id), array_agg(x.hit), array_agg(x.id) filter (where x.deferrals), bool_or(x.is_empty)
        into part_ids, part_hits, part_deferrals, is_emptied
        from part x;
        if is_emptied then  -- what was larger when the first look began
            with emptied as (
                delete from leases l
                where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) and isempty(l.pending)
                returning l.id, l.deadline)
            select moved_ids || array_agg(e.id), moved_to || array_agg(e.deadline) into moved_ids, moved_to
            from emptied e where (extract(epoch from e.deadline) * 1000)::bigint <> e.id >> 20;
        end if;
        ids := coalesce(ids, '{}') || coalesce(part_ids, '{}');
        hits := coalesce(hits, '{}') || coalesce(part_hits, '{}');
        deferrals := coalesce(deferrals, '{}') || coalesce(part_deferrals, '{}');
    end if;
    if cardinality(ids) = 0 then
        return;
    end if;
    if cardinality(moved_ids) > 0 then  -- an id knows only the first deadline
        insert into past_leases as x (partition_id, group_id, id, until)
        select p, g, m.id, max(m.ends) from unnest(moved_ids, moved_to) m (id, ends) group by m.id
        on conflict (partition_id, group_id, id) do update set until = greatest(x.until, excluded.until);
    end if;

    select exists (select from hooks h where h.topic_id = p >> 16 and h.event = 'acked' and h.group_id = 0),
           exists (select from deferred d
                   where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed')
    into is_told, is_freed;
    if is_told then
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
    return query select s.id, s.offsets, is_freed from unnest(ids, hits) s (id, offsets);
end $$;
