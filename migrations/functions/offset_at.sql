-- The first retained message of a partition that was published at or after this time; one past the last if none was.
create or replace function offset_at(p bigint, at timestamptz)
returns bigint
language sql stable as $$
    select offset_within(p, at, l.first_offset, greatest(l.first_offset, (
        select b.base_offset + b.count from batches b where b.partition_id = p order by b.base_offset desc limit 1)))
    from partitions l where l.id = p
$$;
