-- Takes back what leases past their deadline still hold, as failed by timeout. The caller holds the cursor's row.
-- Returns how many deliveries that were, and how many of them are dead now.
create or replace function expire(p bigint, g int, t timestamptz, out n int, out n_dead int)
language plpgsql as $$
#variable_conflict use_column
declare
    late bigint[];
begin
    with gone as (
        delete from leases l where l.partition_id = p and l.group_id = g and l.deadline <= t
        returning l.id, l.deadline, l.pending),
    remembered as (  -- of those that were extended to end sooner, or still live in another part
        insert into past_leases as x (partition_id, group_id, id, until, lost)
        select p, g, e.id, greatest(max(e.deadline), to_timestamp((e.id >> 20) / 1000.0)), range_agg(r.r)
        from gone e cross join lateral unnest(e.pending) r (r)
        where e.id >> 20 > extract(epoch from t) * 1000
           or exists (select from leases l
                      where l.partition_id = p and l.group_id = g and l.id = e.id and l.deadline > t)
           or exists (select from past_leases o where o.partition_id = p and o.group_id = g and o.id = e.id)
        group by e.id
        on conflict (partition_id, group_id, id) do update
        set until = greatest(x.until, excluded.until), lost = x.lost + excluded.lost)
    select array_agg(f.o order by f.o) into late
    from gone x
    cross join lateral unnest(x.pending) r
    cross join lateral generate_series(lower(r), upper(r) - 1) f (o);
    n := coalesce(cardinality(late), 0);
    n_dead := 0;
    if n > 0 then
        n_dead := fail(p, g, t, late, array_fill(null::bigint, array[n]),
                       array_fill('timeout: not settled before the lease ended'::text, array[n]), 'timeout',
                       array_fill(null::jsonb, array[n]));
    end if;
end $$;
